-- Publishes. KEYS: roots. ARGV: msgpack of rows (see publish in queue.lua), their sealed bytes in one string.
-- Answers '1' or '0' of each.
local rows, cut, now, out = cmsgpack.unpack(ARGV[1]), cutter(ARGV[2]), now_ms(), {}
for at = 0, #rows - 1, MESSAGE do
  out[#out + 1] = publish(KEYS[rows[at + 1]], rows, at, cut(rows[at + 4]), now)
end
write_counts()
return table.concat(out)
