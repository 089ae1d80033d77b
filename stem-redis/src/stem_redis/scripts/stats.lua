-- Counts a queue. KEYS: root. Answers {ready, scheduled, leased, dead, age of the oldest ready in ms or -1}.
local root, now = KEYS[1], now_ms()
local ready, leased, oldest = 0, 0, nil
for _, level in ipairs(redis.call('SMEMBERS', root .. ':levels')) do
  local stream = root .. ':s' .. level
  local last = last_handed_out(stream)
  if last then
    local pending = redis.call('XPENDING', stream, GROUP)[1]
    leased = leased + pending
    ready = ready + redis.call('XLEN', stream) - pending
    local first = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
    if first then
      local since = tonumber(string.match(first[1], '^%d+'))
      oldest = math.min(oldest or since, since)
    end
  end
end
local due = redis.call('ZCOUNT', root .. ':d', '-inf', now)
if due > 0 then
  local since = tonumber(redis.call('ZRANGE', root .. ':d', 0, 0, 'WITHSCORES')[2])
  oldest = math.min(oldest or since, since)
end
local scheduled = redis.call('ZCARD', root .. ':d') - due
local age = oldest and math.max(0, now - oldest) or -1
return { ready + due, scheduled, leased, redis.call('XLEN', root .. ':x'), age }
