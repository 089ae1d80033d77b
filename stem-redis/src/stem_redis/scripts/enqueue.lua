-- Publishes messages that are ready, with the `queued` status of each. The same effect as commit.lua has, for less than half
-- the time: messages that are alike come in runs, nothing is packed, and only what is usual is done. When a status is known
-- or the index must be renewed, nothing is written, and commit.lua must do it.
-- KEYS: roots. ARGV: prefix, then runs. A run: root's index, level, 1 if once, index bucket, ttl ms (-1: for ever),
-- a count and so many names and values of each status, the number of messages, and of each its id, the time of its
-- enqueue, sealed bytes. Answers how many messages there are, as a negative number when nothing was written.
local prefix, total, call, format = ARGV[1], #ARGV, redis.call, string.format

local function run_at(at)
  local count_at = at + 6 + ARGV[at + 5]
  return count_at + 1, count_at + 3 * ARGV[count_at]
end

local at, keys, usual = 2, {}, true
while at < total do
  local ttl, first, last = tonumber(ARGV[at + 4]), run_at(at)
  for n = first, last, 3 do
    keys[#keys + 1] = prefix .. 't:' .. ARGV[n]
  end
  local had = call('PTTL', prefix .. 'i:' .. tonumber(ARGV[at + 3]))
  usual = usual and (had == -1 or ttl >= 0 and had >= ttl + LIFE_SLACK)
  at = last + 1
end
if not usual or call('EXISTS', unpack(keys)) > 0 then
  return -#keys
end

local time, nth = call('TIME'), 0
local now = time[1] * 1000 + time[2] / 1000
at = 2
while at < total do
  local root, level, once, bucket = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2] == '1', ARGV[at + 3]
  local fields, first, last = at + 6, run_at(at)
  local expires, set = expiry(nil, tonumber(ARGV[at + 4]), now)

  local ids = {}
  for n = first, last, 3 do
    ids[#ids + 1] = ARGV[n]
  end
  local place = call('RPUSH', prefix .. 'i:' .. tonumber(bucket), unpack(ids)) - #ids

  local stream, added = wake(root, level), 0
  for n = first, last, 3 do
    nth = nth + 1
    local id, key, order = ARGV[n], keys[nth], format('%s%s%010d%squeued', FIRST, bucket, place, expires)
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
  at = last + 1
end
return nth
