-- Takes the lease if nobody has it, and returns whether the owner has it then. It
-- may have it already: the client repeats a command whose answer was lost.
-- KEYS: lease
-- ARGV: owner, milliseconds
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('GET', KEYS[1]) == ARGV[1] then
	return 1
end
return 0
