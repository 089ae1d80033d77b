-- Records updates. KEYS: none. ARGV: prefix, msgpack of rows (see status.lua), their binary fields in one
-- string. Answers '1' or '0' of each.
local prefix, rows, cut, now, out = ARGV[1], cmsgpack.unpack(ARGV[2]), cutter(ARGV[3]), now_ms(), {}
local at = 0
while at < #rows do
  out[#out + 1] = write_status(prefix, rows, at, cut, now) and 1 or 0
  at = after_status(rows, at)
end
write_statuses(prefix)
return table.concat(out)
