-- Publishes messages that are ready, with the `queued` status of each, which must all be new: when one is known, writes
-- nothing, and commit.lua must do it. The same effect as there for less than half the time: messages that are alike come in
-- runs, and nothing is packed. Answers how many messages there are, as a negative number when nothing was written.
-- KEYS: roots. ARGV: prefix, then runs. A run: root's index, level, 1 if once, index bucket, ttl ms (-1: for ever),
-- a count and so many names and values of each status, the number of messages, and of each its id, the time of its
-- enqueue, sealed bytes.
local prefix, total, call, format = ARGV[1], #ARGV, redis.call, string.format
local FIRST = '0000000000000000000000' -- of field o (see status.lua): generation, attempt and rank 0, no field of a state

local keys, at = {}, 2
while at < total do
  local first = at + 7 + ARGV[at + 5]
  at = first + 3 * ARGV[first - 1]
  for n = first, at - 1, 3 do
    keys[#keys + 1] = prefix .. 't:' .. ARGV[n]
  end
end
if call('EXISTS', unpack(keys)) > 0 then
  return -#keys
end

local now, nth, at = now_ms(), 0, 2
while at < total do
  local root, level, once = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2] == '1'
  local bucket, ttl, fields = ARGV[at + 3], tonumber(ARGV[at + 4]), at + 6
  local first = fields + 1 + ARGV[at + 5]
  at = first + 3 * ARGV[first - 1]

  local ids = {}
  for n = first, at - 1, 3 do
    ids[#ids + 1] = ARGV[n]
  end
  local index = index_key(prefix, bucket)
  local had = call('PTTL', index)
  local place = call('RPUSH', index, unpack(ids)) - #ids
  renew_index(prefix, bucket, had, ttl < 0 and -1 or ttl + LIFE_SLACK)

  local expires, set = expiry(nil, ttl, now)
  local head, tail, stream, added = FIRST .. bucket, expires .. 'queued', wake(root, level), 0
  for n = first, at - 1, 3 do
    nth = nth + 1
    local id, key, order = ARGV[n], keys[nth], format('%s%010d%s', head, place, tail)
    call('HSET', key, 'o', order, 't', ARGV[n + 1], unpack(ARGV, fields, first - 2))
    place = place + 1
    if set then
      call('PEXPIRE', key, set)
    end
    if not once then
      call('XADD', stream, '*', 'i', id, 'e', ARGV[n + 2])
      added = added + 1
    elseif call('SET', root .. ':once:' .. id, '1', 'NX') then
      call('XADD', stream, '*', 'i', id, 'e', ARGV[n + 2], 'c', '0 0 0 1')
      added = added + 1
    end
  end
  if added > 0 then
    ring(root)
    call('HINCRBY', root .. ':counts', 'published', added)
  end
end
return nth
