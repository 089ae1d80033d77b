-- Removes ready and scheduled messages, at most BATCH of each stream. KEYS: root. ARGV: once_ttl ms.
-- Answers how many; 0 means that there are none left.
local BATCH = 1000
local root, once_ttl, removed = KEYS[1], tonumber(ARGV[1]), 0
unblock(root)

local function purged(id, counts)
  local _, _, _, once = parse_counts(counts)
  if once == 1 then
    forget_once(root, id, once_ttl)
  end
  removed = removed + 1
end

for _, level in ipairs(redis.call('SMEMBERS', root .. ':levels')) do
  local stream = root .. ':s' .. level
  local last = last_handed_out(stream)
  local entries = last and redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', BATCH) or {}
  for _, entry in ipairs(entries) do
    redis.call('XDEL', stream, entry[1])
    purged(entry[2][2], entry[2][6])
  end
  rest(root, level)
end
for _, member in ipairs(redis.call('ZRANGE', root .. ':d', 0, BATCH - 1)) do
  local m = cmsgpack.unpack(member)
  redis.call('ZREM', root .. ':d', member)
  purged(m[3], m[4] ~= '' and m[4] or nil)
end
if removed > 0 then
  count(root, 'purged', removed)
  write_counts()
  rest_counts(root)
end
return removed
