-- Statuses, in the order of law 20.
--
-- Field o of a status is cut by position:
--    1-21  its order: generation and attempt as ten digits each, the rank as one
--   22     '1' if the row has a field that belongs to its state (payload, encoder, error, finished)
--   23-30  its index bucket, 31-40 its position there
--   41-50  when it expires, in seconds since the epoch; all 9 for never
--   51-    the state, and '|reason' if there is one
-- A row of an update, after `at`: id, the order as 21 digits, state and reason, index bucket, ttl ms (-1: for ever),
-- 1 if it brings a field of the state, a count and so many names and texts, a count and so many names and sizes.
local TERMINAL = 51 -- the byte '3'
local UNKNOWN = '00000000' -- the bucket of a status without a time of its enqueue

local known, indexed, ended = {}, {}, {}

local call, sub, byte, match, format = redis.call, string.sub, string.byte, string.match, string.format

-- Field o of a status as of now in this script, false where there is none.
local function order_of(prefix, id)
  local order = known[id]
  if order == nil then
    order = call('HGET', prefix .. 't:' .. id, 'o')
    known[id] = order
  end
  return order
end

-- Law 20. The digits of an order compare as its numbers do: a higher generation first, then attempt and rank.
local function may_follow(order, new)
  if not order then
    return true
  elseif byte(order, 21) == TERMINAL then
    return sub(new, 1, 10) > sub(order, 1, 10)
  end
  return new >= sub(order, 1, 21)
end

-- Puts a status at the end of its bucket. What it answers goes into field o: only the entry that the status
-- points at counts, so an older one need not be removed.
local function index_at(prefix, bucket, id)
  local ids = indexed[bucket]
  if not ids then
    ids = { start = redis.call('LLEN', index_key(prefix, bucket)) }
    indexed[bucket] = ids
  end
  ids[#ids + 1] = id
  return format('%s%010d', bucket, ids.start + #ids - 1)
end

-- The place after the row of an update.
local function after_status(rows, at)
  local binary = at + 8 + rows[at + 7]
  return binary + rows[binary]
end

-- Writes the update after `at`, if it may follow; answers whether it did.
local function write_status(prefix, rows, at, cut, now)
  local id, new, tail, bucket, ttl, owned =
    rows[at + 1], rows[at + 2], rows[at + 3], rows[at + 4], rows[at + 5], rows[at + 6]
  local first = at + 8
  local binary = first + rows[at + 7]
  local fields -- made only when the texts are not all
  if rows[binary] > 0 then
    fields = { unpack(rows, first, binary - 1) }
    for n = binary + 1, binary + rows[binary], 2 do -- cut in any case: the next row's parts follow
      fields[#fields + 1] = rows[n]
      fields[#fields + 1] = cut(rows[n + 1])
    end
  end
  local key, have = prefix .. 't:' .. id, order_of(prefix, id)
  if not may_follow(have, new) then
    return false
  end
  local place, expires
  if have then
    local old = sub(have, 23, 30)
    expires = sub(have, 41, 50)
    if bucket == UNKNOWN or bucket == old then
      place, bucket = sub(have, 23, 40), old
    end
    if sub(have, 1, 21) == new and match(have, '^%a+', 51) == match(tail, '^%a+') then
      owned = math.max(owned, byte(have, 22) - 48)
    elseif byte(have, 22) == 49 then
      call('HDEL', key, 'p', 'c', 'e', 'f')
    end
  end
  place = place or index_at(prefix, bucket, id)
  index_lives(bucket, ttl < 0 and ttl or ttl + LIFE_SLACK)
  local set
  expires, set = expiry(expires, ttl, now)
  local order = new .. owned .. place .. expires .. tail
  known[id] = order
  if not fields then
    call('HSET', key, 'o', order, unpack(rows, first, binary - 1))
  elseif #fields < 2 * CHUNK then
    call('HSET', key, 'o', order, unpack(fields))
  else
    call('HSET', key, 'o', order)
    for from = 1, #fields, 2 * CHUNK do
      call('HSET', key, unpack(fields, from, math.min(from + 2 * CHUNK - 1, #fields)))
    end
  end
  if set == -1 then
    call('PERSIST', key)
  elseif set then
    call('PEXPIRE', key, set)
  end
  if byte(new, 21) == TERMINAL then
    ended[#ended + 1] = id
  end
  return true
end

-- Tells who waits. A message to each task's own channel would cost more than its status does; a few channels
-- share them, by the last characters of the id.
local SHARDS = 16

local function tell_ended(prefix)
  local shards = {}
  for _, id in ipairs(ended) do
    local shard = (byte(id, -1) + 7 * (byte(id, -2) or 0)) % SHARDS
    shards[shard] = shards[shard] or {}
    table.insert(shards[shard], id)
  end
  for shard, ids in pairs(shards) do
    redis.pcall('PUBLISH', prefix .. 'w:' .. shard, table.concat(ids, ' '))
  end
end

-- Call last, once for all statuses written.
local function write_statuses(prefix)
  tell_ended(prefix)
  for bucket, ttl in pairs(index_life) do
    local key = index_key(prefix, bucket)
    local had = redis.call('PTTL', key)
    local ids = indexed[bucket]
    if ids then
      in_chunks(ids, function(first, last)
        redis.call('RPUSH', key, unpack(ids, first, last))
      end)
    end
    renew_index(prefix, bucket, had, ttl)
  end
end
