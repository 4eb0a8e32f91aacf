-- Replaces a tenant's record if it is the expected version, with its places in
-- the indexes and the announcement, or changes nothing. Returns the version that
-- is stored then ('' if there is no record): the new one, if and only if it was
-- replaced now or by the same command before, whose answer was lost. A delete of
-- what is not there looks like the latter. The same command writes again what it
-- has written: whoever waits for the disk waits for what was written last.
--
-- The first record of a registry gives it its name. Who knows a registry by its
-- name changes no other: if this is another, or has none any more, '!' is returned.
--
-- KEYS: records, index, changes, warm, registry, secrets
-- ARGV: id, expected etag ('' for no record), new etag ('' to delete),
--       record (begins with "etag."), length the stream is trimmed to,
--       '1' if the tenant is kept warm, name for a registry that has none, name
--       that the registry is known by ('': none), since when the tenant has its
--       secret (Unix time in seconds; 'inf' if it is disabled)
if ARGV[8] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[8] then
	return '!'
end
local current = redis.call('HGET', KEYS[1], ARGV[1])
local etag = current and (string.match(current, '^(%x+)%.') or '?') or ''
if etag ~= ARGV[2] and etag ~= ARGV[3] then
	return etag
end
if ARGV[3] == '' then
	redis.call('HDEL', KEYS[1], ARGV[1])
	redis.call('ZREM', KEYS[2], ARGV[1])
	redis.call('ZREM', KEYS[6], ARGV[1])
else
	redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
	redis.call('ZADD', KEYS[2], 0, ARGV[1])
	redis.call('ZADD', KEYS[6], ARGV[9], ARGV[1])
	redis.call('SET', KEYS[5], ARGV[7], 'NX')
end
if ARGV[6] == '1' then
	redis.call('ZADD', KEYS[4], 0, ARGV[1])
else
	redis.call('ZREM', KEYS[4], ARGV[1])
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'tenant', ARGV[1], 'warm', ARGV[6])
return ARGV[3]
