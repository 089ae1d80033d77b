-- Publishes. KEYS: roots. ARGV: msgpack of rows (see publish in queue.lua), their sealed bytes in one string.
-- Answers '1' or '0' of each.
local rows, cut, now, out = cmsgpack.unpack(ARGV[1]), cutter(ARGV[2]), now_ms(), {}
for n, row in ipairs(rows) do
  out[n] = publish(KEYS[row[1]], row, cut(row[4]), now)
end
write_counts()
return table.concat(out)
