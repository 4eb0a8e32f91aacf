-- Puts tenants' records back, with their places in the indexes and the
-- announcements, and returns for each what was there: 0 no record, 1 the same
-- version, 2 another. The same version is left as it is, but finds its places in
-- the indexes again, which may have been lost alone.
--
-- KEYS: records, index, changes, warm, registry, secrets
-- ARGV: '1' to replace other versions, '1' to write nothing at all, length the
--       stream is trimmed to, name for a registry that has none ('': leave it
--       without), and then for each tenant: id, record (begins with "etag."),
--       '1' if it is kept warm, since when it has its secret (see swap.lua)
local function version(record)
	return record and (string.match(record, '^(%x+)%.') or '?') or ''
end
local replace, dry = ARGV[1] == '1', ARGV[2] == '1'
local found = {}
for i = 5, #ARGV, 4 do
	local id, record, warm, secret = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
	local current = version(redis.call('HGET', KEYS[1], id))
	local was = 2
	if current == '' then
		was = 0
	elseif current == version(record) then
		was = 1
	end
	found[#found + 1] = was
	local write = was == 0 or was == 2 and replace
	if not dry and (write or was == 1) then
		redis.call('ZADD', KEYS[2], 0, id)
		redis.call('ZADD', KEYS[6], secret, id)
		if warm == '1' then
			redis.call('ZADD', KEYS[4], 0, id)
		else
			redis.call('ZREM', KEYS[4], id)
		end
	end
	if not dry and write then
		redis.call('HSET', KEYS[1], id, record)
		redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'tenant', id, 'warm', warm)
	end
end
if ARGV[4] ~= '' and not dry then
	-- A name that is there is written again: an import that has nothing else to
	-- write waits for the disk too, on which that of one before may not be yet.
	redis.call('SET', KEYS[5], redis.call('GET', KEYS[5]) or ARGV[4])
end
return found
