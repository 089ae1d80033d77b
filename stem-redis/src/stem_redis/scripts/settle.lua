-- Settles deliveries. KEYS: roots. ARGV: once_ttl ms, msgpack of rows (see settle in leases.lua).
-- Answers '1' or '0' of each.
local once_ttl, rows, now, out = tonumber(ARGV[1]), cmsgpack.unpack(ARGV[2]), now_ms(), {}
local places = {}
for at = 0, #rows - 1, SETTLEMENT do
  places[#places + 1] = at
end
unblock(KEYS[1])
look_up(KEYS, rows, places)
for n, at in ipairs(places) do
  local stream = stream_of(KEYS, rows, at)
  local done = holds(stream, rows[at + 3], rows[at + 4])
    and settle(KEYS[rows[at + 1]], stream, rows, at, now, once_ttl)
  out[n] = done and 1 or 0
end
write_finished()
return table.concat(out)
