-- Gives tenants their places in the index of secrets, or takes those of who is
-- none, unless the tenant was changed since it was read: the change has done it.
-- Returns how many were not.
-- KEYS: records, secrets
-- ARGV: for each: id, etag of the record ('' if there is none), since when it has
--       its secret (see swap.lua)
local done = 0
for i = 1, #ARGV, 3 do
	local record = redis.call('HGET', KEYS[1], ARGV[i])
	local etag = record and (string.match(record, '^(%x+)%.') or '?') or ''
	if etag == ARGV[i + 1] then
		done = done + 1
	end
	if etag == ARGV[i + 1] and etag ~= '' then
		redis.call('ZADD', KEYS[2], ARGV[i + 2], ARGV[i])
	elseif etag == ARGV[i + 1] then
		redis.call('ZREM', KEYS[2], ARGV[i])
	end
end
return done
