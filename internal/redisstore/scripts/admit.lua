-- Gives an exchange its turn within the fleet's budget for one issuer, or says
-- when to ask again. Returns whether it has one, the microseconds to wait (for
-- the turn, or before asking again), how many turns are not paid back, and how
-- many replicas have asked lately.
--
-- The budget is kept as one number, the time at which all turns that were given
-- are paid back (generic cell rate algorithm). A turn may be given for a moment
-- to come: whoever gets it waits, and those who ask later wait for longer.
--
-- KEYS: budget, buyers
-- ARGV: microseconds a turn costs, turns that may be taken at once, turns that
--       must be left after this one, microseconds that may be waited, replica,
--       microseconds that a replica is remembered
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost, burst, spare, patience = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local memory = tonumber(ARGV[6])

redis.call('ZADD', KEYS[2], now, ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - memory))
redis.call('PEXPIRE', KEYS[2], math.ceil(memory / 1000))
local buyers = redis.call('ZCARD', KEYS[2])

-- After a failover the clock may be behind what was written by another's. Nobody
-- is given a turn that is a minute away, so no more is owed than that.
local paid = tonumber(redis.call('GET', KEYS[1]) or 0)
paid = math.min(math.max(paid, now), now + burst * cost + 60000000)
local owed = math.ceil((paid - now) / cost)
paid = paid + cost
local wait = math.max(0, paid - (burst - spare) * cost - now)
if wait > patience then
	return {0, wait - patience, owed, buyers}
end
redis.call('SET', KEYS[1], string.format('%.0f', paid), 'PX', math.ceil((paid - now) / 1000))
return {1, wait, owed + 1, buyers}
