-- Makes dead letters ready again. KEYS: root. ARGV: msgpack of rows {entry, id}.
-- Answers the new generation of each, -1 where it is no longer dead.
local root, dead, out = KEYS[1], KEYS[1] .. ':x', {}
for n, row in ipairs(cmsgpack.unpack(ARGV[1])) do
  local found = redis.call('XRANGE', dead, row[1], row[1])[1]
  if found and found[2][2] == row[2] then
    local f = found[2]
    local g, _, _, once = parse_counts(f[6])
    add(root, tonumber(f[12]), f[2], f[4], counts_of(g + 1, 0, 0, once))
    redis.call('XDEL', dead, row[1])
    out[n] = g + 1
  else
    out[n] = -1
  end
end
if redis.call('XLEN', dead) == 0 then
  redis.call('DEL', dead)
end
ring(root)
return out
