-- Returns what load.lua does, and what count.lua has counted in each of the last
-- hours, the oldest first: what brought a token, and what failed. It asks for no more,
-- whatever else somebody may have put there.
-- KEYS: token, failure, exchanges
-- ARGV: how many hours
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local token = redis.call('GET', KEYS[1])
local failure = redis.call('GET', KEYS[2])
local fields, hour = {}, math.floor(time[1] / 3600)
for h = hour - ARGV[1] + 1, hour do
	fields[#fields + 1] = string.format('%d.ok', h)
	fields[#fields + 1] = string.format('%d.failed', h)
end
local counts = redis.pcall('HMGET', KEYS[3], unpack(fields))
if counts.err then
	counts = {} -- It is not what it should be, or not for this user.
end
return {token, redis.call('PTTL', KEYS[1]), failure, redis.call('PTTL', KEYS[2]), now, counts}
