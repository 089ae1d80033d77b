-- Records updates. KEYS: none. ARGV: prefix, msgpack of rows (see status.lua), their binary fields in one
-- string. Answers '1' or '0' of each.
local prefix, cut, out = ARGV[1], cutter(ARGV[3]), {}
for n, row in ipairs(cmsgpack.unpack(ARGV[2])) do
  out[n] = write_status(prefix, row, cut) and 1 or 0
end
write_index(prefix)
return table.concat(out)
