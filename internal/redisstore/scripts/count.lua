-- Counts an exchange in the hour under way, by this server's clock. A day of hours
-- is kept, and nothing of who is idle for a day. It stands before the scripts that
-- save what an exchange has brought, and never makes them fail: what it may not do,
-- or not with what it finds, it leaves.
local function count(key, outcome)
	local hour = math.floor(redis.call('TIME')[1] / 3600)
	local counted = redis.pcall('HINCRBY', key, string.format('%d.%s', hour, outcome), 1)
	if counted == 1 then
		-- Each hour once. The key would have ended a day after what was counted before,
		-- so what is older than a day is not older than two.
		local old = {}
		for h = hour - 50, hour - 24 do
			old[#old + 1] = string.format('%d.ok', h)
			old[#old + 1] = string.format('%d.failed', h)
		end
		redis.pcall('HDEL', key, unpack(old))
	end
	redis.pcall('PEXPIRE', key, 25 * 3600000)
end

