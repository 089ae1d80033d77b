-- What enqueue.lua does, for one message: without a table or a function of its own, which cost as much as the commands.
-- KEYS: the root. ARGV: prefix, level, 1 if once, index bucket, the same as its key says it, ttl ms (-1: for ever), id, time of
-- the enqueue, sealed bytes, then names and values of the status. Answers 1, or -1 when nothing was written.
local call, root, prefix, level, ttl, id = redis.call, KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[6]), ARGV[7]
local key, index = prefix .. 't:' .. id, prefix .. 'i:' .. ARGV[5]
local had = call('PTTL', index)
if not (had == -1 or ttl >= 0 and had >= ttl + LIFE_SLACK) or call('EXISTS', key) == 1 then
  return -1
end

-- As expiry() in life.lua.
local expires = NEVER
if ttl >= LONG_LIFE then
  ttl = ttl + LIFE_SLACK
end
if ttl >= 0 then
  local time = call('TIME')
  expires = string.format('%010d', time[1] + (time[2] / 1000 + ttl) / 1000)
end
local place = call('RPUSH', index, id) - 1
local order = string.format('%s%s%010d%squeued', FIRST, ARGV[4], place, expires)
call('HSET', key, 'o', order, 't', ARGV[8], unpack(ARGV, 10))
if ttl >= 0 then
  call('PEXPIRE', key, ttl)
end

-- As wake() in ready.lua.
local stream = root .. ':s' .. level
if call('SADD', root .. ':levels', level) == 1 then
  if call('PERSIST', stream) == 0 then
    redis.pcall('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
  end
  call('PERSIST', root .. ':counts')
end
if ARGV[3] == '0' then
  call('XADD', stream, '*', 'i', id, 'e', ARGV[9])
elseif call('SET', root .. ':once:' .. id, '1', 'NX') then
  call('XADD', stream, '*', 'i', id, 'e', ARGV[9], 'c', '0 0 0 1')
else
  return 1
end

-- As ring() in ready.lua.
local bell = root .. ':bell'
if call('EXISTS', bell) == 0 then
  call('RPUSH', bell, '1')
  call('PEXPIRE', bell, BELL_LIFE)
end
call('HINCRBY', root .. ':counts', 'published', 1)
return 1
