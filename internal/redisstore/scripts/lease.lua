-- Takes the lease if nobody has it, or prolongs it for who has it already, and
-- returns whether the owner has it then. The client repeats a command whose
-- answer was lost, and must not stand in its own way.
-- KEYS: lease
-- ARGV: owner, milliseconds
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
	return 1
end
if redis.call('GET', KEYS[1]) == ARGV[1] then
	return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
