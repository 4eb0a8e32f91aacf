-- Puts a token's or a failure's record sealed anew in the place of the one that
-- was read, for the time that it has left, and returns whether it is there then:
-- 0 if it has ended, or somebody has changed it in between.
-- KEYS: token or failure
-- ARGV: record as it was read, the same sealed anew
local current = redis.call('GET', KEYS[1])
if current == ARGV[1] then
	redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
	return 1
end
return current == ARGV[2] and 1 or 0
