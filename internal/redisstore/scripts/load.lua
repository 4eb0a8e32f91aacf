-- Returns the token and the failure with the milliseconds they have left, read
-- at one moment. A missing value is false.
-- KEYS: token, failure
local token = redis.call('GET', KEYS[1])
local failure = redis.call('GET', KEYS[2])
return {token, redis.call('PTTL', KEYS[1]), failure, redis.call('PTTL', KEYS[2])}
