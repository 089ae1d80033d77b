-- Settles deliveries. KEYS: roots. ARGV: once_ttl ms, msgpack of rows (see settle in leases.lua).
-- Answers '1' or '0' of each.
local once_ttl, rows, now, out = tonumber(ARGV[1]), cmsgpack.unpack(ARGV[2]), now_ms(), {}
unblock(KEYS[1])
look_up(KEYS, rows)
for n, row in ipairs(rows) do
  local root = KEYS[row[1]]
  local done = holds(root .. ':s' .. row[2], row[3], row[4]) and settle(root, row, now, once_ttl)
  out[n] = done and 1 or 0
end
write_finished()
return table.concat(out)
