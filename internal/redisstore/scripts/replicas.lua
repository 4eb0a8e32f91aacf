-- Returns what time it is, how many replicas have said that they are there, and
-- those that have said so last, each with when that was.
-- KEYS: replicas
-- ARGV: how many
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {now, redis.call('ZCARD', KEYS[1]), redis.call('ZREVRANGE', KEYS[1], 0, ARGV[1] - 1, 'WITHSCORES')}
