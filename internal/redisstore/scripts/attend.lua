-- Notes that a replica is there, by this server's clock, and forgets those that
-- have not said so for long.
-- KEYS: replicas
-- ARGV: replica, milliseconds that it is remembered
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
