-- Removes dead letters. KEYS: root. ARGV: once_ttl ms, msgpack of rows {entry, id}. Answers how many.
local root, dead, removed = KEYS[1], KEYS[1] .. ':x', 0
unblock(root)
for _, row in ipairs(cmsgpack.unpack(ARGV[2])) do
  local found = redis.call('XRANGE', dead, row[1], row[1])[1]
  if found and found[2][2] == row[2] then
    local _, _, _, once = parse_counts(found[2][6])
    if once == 1 then
      forget_once(root, row[2], tonumber(ARGV[1]))
    end
    redis.call('XDEL', dead, row[1])
    removed = removed + 1
  end
end
if redis.call('XLEN', dead) == 0 then
  redis.call('DEL', dead)
end
count(root, 'purged', removed)
write_counts()
rest_counts(root)
return removed
