-- Stores a failure for its pause, and counts the exchange that met it.
-- KEYS: failure, exchanges
-- ARGV: record, milliseconds
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
count(KEYS[2], 'failed')
return 1
