-- Returns what load.lua does, and what count.lua has counted, as a hash has it.
-- KEYS: token, failure, exchanges
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local token = redis.call('GET', KEYS[1])
local failure = redis.call('GET', KEYS[2])
local counts = redis.pcall('HGETALL', KEYS[3])
if counts.err then
	counts = {} -- It is not what it should be, or not for this user.
end
return {token, redis.call('PTTL', KEYS[1]), failure, redis.call('PTTL', KEYS[2]), now, counts}
