-- Moves the end of leases to now + lease. KEYS: roots. ARGV: lease ms, msgpack of rows of six, as in settle.
-- Answers '1' or '0' of each.
local lease, rows, now, out = tonumber(ARGV[1]), cmsgpack.unpack(ARGV[2]), now_ms(), {}
local streams, places = {}, {}
for at = 0, #rows - 1, 6 do
  places[#places + 1] = at
end
unblock(KEYS[1])
look_up(KEYS, rows, places)
for n, at in ipairs(places) do
  local stream = stream_of(KEYS, rows, at)
  if holds(stream, rows[at + 3], rows[at + 4]) then
    streams[stream] = streams[stream] or { root = KEYS[rows[at + 1]] }
    table.insert(streams[stream], rows[at + 3])
    out[n] = 1
  else
    out[n] = 0
  end
end
local ends = lease_ends(now, lease)
for stream, list in pairs(streams) do
  local head = redis.call('ZRANGE', list.root .. ':leases', 0, 0, 'WITHSCORES')[2]
  lease_entries(stream, list, lease, false)
  note_lease(list.root, ends)
  if ends - now <= HORIZON and (not head or ends < tonumber(head)) then
    ring(list.root)
  end
end
return table.concat(out)
