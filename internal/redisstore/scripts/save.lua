-- Stores a token unless a newer one is there, forgets the failure, and returns
-- what is stored then and the milliseconds it has left.
--
-- Age is life minus what is left of it. Both ends are counted by this server's
-- clock or by monotonic time, so that no machine's wall clock decides which
-- token is newer. A process that was stopped and comes back with the token it
-- had bought finds a younger one here, and takes it.
--
-- KEYS: token, failure
-- ARGV: token id, life in ms, ms left, record (begins with "id.life.")
local left = tonumber(ARGV[3])
local current = redis.call('GET', KEYS[1])
if current then
	local id, life = string.match(current, '^(%x+)%.(%d+)%.')
	local currentLeft = redis.call('PTTL', KEYS[1])
	if id == ARGV[1] then
		-- The issuer gave the same token again: its end does not move away.
		if currentLeft <= left then
			redis.call('DEL', KEYS[2])
			return {current, currentLeft}
		end
	elseif id and tonumber(life) - currentLeft < tonumber(ARGV[2]) - left then
		return {current, currentLeft}
	end
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', left)
redis.call('DEL', KEYS[2])
return {ARGV[4], left}
