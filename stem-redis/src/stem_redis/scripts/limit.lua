-- The generic cell rate algorithm. ARGV: key, permits, microseconds for one permit, burst.
-- Answers {1 if granted, microseconds to wait}.
local permits, interval, burst = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local arrival = math.max(tonumber(redis.call('GET', ARGV[1]) or '0'), now) + permits * interval
local wait = arrival - burst * interval - now
if wait > 0 then
  return { 0, math.ceil(wait) }
end
local life = math.max(1, math.ceil((arrival - now) / 1000))
redis.call('SET', ARGV[1], string.format('%.3f', arrival), 'PX', string.format('%.0f', life))
return { 1, 0 }
