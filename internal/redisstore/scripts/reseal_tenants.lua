-- Puts tenants' records sealed anew in the place of those that were read, and
-- returns for each whether it is there then: 0 if somebody has changed it in
-- between. It is the same tenant, in the same version: nothing is announced.
--
-- The same command writes again what it has written, and the registry's name is
-- written always: whoever waits for the disk waits for what was written last.
--
-- KEYS: records, registry
-- ARGV: for each tenant: id, record as it was read, the same sealed anew
local name = redis.call('GET', KEYS[2])
if name then
	redis.call('SET', KEYS[2], name)
end
local done = {}
for i = 1, #ARGV, 3 do
	local current = redis.call('HGET', KEYS[1], ARGV[i])
	done[#done + 1] = 0
	if current == ARGV[i + 1] or current == ARGV[i + 2] then
		redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
		done[#done] = 1
	end
end
return done
