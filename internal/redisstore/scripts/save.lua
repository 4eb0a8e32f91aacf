-- Stores a token and forgets the failure, unless a newer token is there, and
-- returns what is stored then, the milliseconds it has left, and 1 if the token
-- was there before and ends sooner than is said of it now.
--
-- Age is life minus what is left of it. Both ends are counted by this server's
-- clock or by monotonic time, so that no machine's wall clock decides which
-- token is newer. A process that was stopped and comes back with the token it
-- had bought finds a younger one here, and takes it.
--
-- What is left of a life is less by the time that the command was on its way: a
-- server that was stopped works off what had been sent to it when it goes on,
-- however late, and would give the token a life beyond its end.
--
-- A token that is not there yet is counted as an exchange, if it is young: one
-- that a replica gives back to a server that had lost it is not.
--
-- KEYS: token, failure, exchanges
-- ARGV: token id, life in ms, ms left when this was sent, record (begins with
--       "id.life."), when this was sent, in ms by this server's clock (0:
--       unknown), id of the token that this one replaces ('': none)
local left = tonumber(ARGV[3])
local sooner = 0
local sent = tonumber(ARGV[5])
if sent > 0 then
	local time = redis.call('TIME')
	left = left - math.max(0, time[1] * 1000 + math.floor(time[2] / 1000) - sent)
	if left <= 0 then
		return {ARGV[4], 0, 0}
	end
end
local current = redis.call('GET', KEYS[1])
local id, life = string.match(current or '', '^(%x+)%.(%d+)%.')
local currentLeft = redis.call('PTTL', KEYS[1])
-- What has no end, or more left than its life, is none of ours and gives way.
if id and currentLeft > 0 and currentLeft <= tonumber(life) then
	if id == ARGV[1] then
		-- The issuer gave the same token again: its end does not move away.
		if currentLeft < left then
			left, sooner = currentLeft, 1
		end
	elseif id ~= ARGV[6] and tonumber(life) - currentLeft < tonumber(ARGV[2]) - left then
		return {current, currentLeft, 0}
	end
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', left)
redis.call('DEL', KEYS[2])
if id ~= ARGV[1] and tonumber(ARGV[2]) - left < 60000 then
	count(KEYS[3], 'ok')
end
return {ARGV[4], left, sooner}
