-- Publishes messages with the `queued` status of each, which must all be new: when one is known, writes nothing, and
-- commit.lua must do it. The same effect as there, for half the time.
-- KEYS: roots. ARGV: prefix, msgpack of rows, their binary parts in one string. Answers '1' of each, or
-- '0' of each.
-- A row: a message's (see publish in queue.lua), the rest of field o before and after the place in the index (see
-- status.lua), index bucket, ttl ms (-1: for ever), a count and so many names and texts, a count and so many names and sizes.
local prefix, rows, cut = ARGV[1], cmsgpack.unpack(ARGV[2]), cutter(ARGV[3])
local now, call, format = now_ms(), redis.call, string.format

local by_bucket, seen, at, total, new, steps = {}, {}, 0, #rows, true, 0
while at < total do
  local id, bucket = rows[at + 3], rows[at + 10]
  new = new and not seen[id] and call('EXISTS', prefix .. 't:' .. id) == 0
  seen[id] = true
  local ids = by_bucket[bucket]
  if not ids then
    ids = {}
    by_bucket[bucket] = ids
  end
  ids[#ids + 1] = id
  index_lives(bucket, rows[at + 11] < 0 and -1 or rows[at + 11] + LIFE_SLACK)
  at = at + 12 + rows[at + 12]
  at = at + 1 + rows[at + 1]
  steps = steps + 1
end
if not new then
  return string.rep('0', steps)
end

local next_place = {}
for bucket, ids in pairs(by_bucket) do
  local key = index_key(prefix, bucket)
  local had = call('PTTL', key)
  next_place[bucket] = call('RPUSH', key, unpack(ids)) - #ids
  renew_index(prefix, bucket, had, index_life[bucket])
end

at = 0
while at < total do
  local message, bucket, sealed = at, rows[at + 10], cut(rows[at + 4])
  local key, texts = prefix .. 't:' .. rows[at + 3], at + 12
  local place, expires, set = next_place[bucket], expiry(nil, rows[at + 11], now)
  next_place[bucket] = place + 1
  local order = rows[at + 8] .. bucket .. format('%010d', place) .. expires .. rows[at + 9]
  local binary = texts + rows[texts] + 1
  call('HSET', key, 'o', order, unpack(rows, texts + 1, binary - 1))
  for n = binary + 1, binary + rows[binary], 2 do
    call('HSET', key, rows[n], cut(rows[n + 1]))
  end
  if set then
    call('PEXPIRE', key, set)
  end
  publish(KEYS[rows[message + 1]], rows, message, sealed, now)
  at = binary + rows[binary]
end
write_counts()
return string.rep('1', steps)
