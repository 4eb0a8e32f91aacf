-- Returns the token and the failure with the milliseconds they have left, read
-- at one moment, and that moment in milliseconds by this server's clock. A
-- missing value is false.
-- KEYS: token, failure
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local token = redis.call('GET', KEYS[1])
local failure = redis.call('GET', KEYS[2])
return {token, redis.call('PTTL', KEYS[1]), failure, redis.call('PTTL', KEYS[2]), now}
