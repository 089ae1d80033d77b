-- Statuses, in the order of law 20.
--
-- Field o of a status: generation and attempt as ten digits each, the rank as one, '1' if the row has a field
-- that belongs to its state (payload, encoder, error, finished), the state, and '|reason' if there is one.
-- A row of an update: {id, the order as 21 digits, state and reason, index bucket, ttl ms (-1: for ever),
-- 1 if it brings a field of the state, flat list of text fields, flat list of binary fields' names and sizes}

local TERMINAL = '3'
local INDEX_SLACK = 3600000 -- ms an index may outlive its last status, so that it is not renewed at each write

local known, indexed, index_life = {}, {}, {}

local function status_of(prefix, id)
  local status = known[id]
  if not status then
    local got = redis.call('HMGET', prefix .. 't:' .. id, 'o', 'i')
    status = { o = got[1], bucket = got[2] }
    known[id] = status
  end
  return status
end

local function may_follow(order, new)
  if not order then
    return true
  end
  local have_generation, new_generation = string.sub(order, 1, 10), string.sub(new, 1, 10)
  if have_generation ~= new_generation then
    return new_generation > have_generation
  end
  return string.sub(order, 21, 21) ~= TERMINAL and new >= string.sub(order, 1, 21)
end

local function index_at(bucket, id, ttl)
  if id then
    local ids = indexed[bucket] or {}
    indexed[bucket] = ids
    ids[#ids + 1] = 0
    ids[#ids + 1] = id
  end
  local life = index_life[bucket]
  if not life or (life ~= -1 and (ttl == -1 or ttl > life)) then
    index_life[bucket] = ttl
  end
end

-- Writes what may follow; answers whether it did.
local function write_status(prefix, row, cut)
  local id, new, tail, bucket, ttl = row[1], row[2], row[3], tostring(row[4]), row[5]
  local key, status = prefix .. 't:' .. id, status_of(prefix, id)
  local fields, owned = row[7], row[6]
  local binary = row[8]
  for n = 1, #binary, 2 do -- cut in any case: the next row's parts follow
    fields[#fields + 1] = binary[n]
    fields[#fields + 1] = cut(binary[n + 1])
  end
  local have = status.o
  if not may_follow(have, new) then
    return false
  end
  if have then
    local same_state = string.match(have, '^%a+', 23) == string.match(tail, '^%a+')
    if string.sub(have, 1, 21) == new and same_state then
      owned = math.max(owned, tonumber(string.sub(have, 22, 22)))
    elseif string.sub(have, 22, 22) == '1' then
      redis.call('HDEL', key, 'p', 'c', 'e', 'f')
    end
  end
  local order = new .. owned .. tail
  local old = status.bucket
  if not old or (bucket ~= '0' and bucket ~= old) then
    if old then
      redis.call('ZREM', prefix .. 'i:' .. old, id)
    end
    fields[#fields + 1] = 'i'
    fields[#fields + 1] = bucket
    status.bucket = bucket
    index_at(bucket, id, ttl)
  else
    index_at(old, nil, ttl)
  end
  if #fields < 2 * CHUNK then
    redis.call('HSET', key, 'o', order, unpack(fields))
  else
    redis.call('HSET', key, 'o', order)
    for first = 1, #fields, 2 * CHUNK do
      redis.call('HSET', key, unpack(fields, first, math.min(first + 2 * CHUNK - 1, #fields)))
    end
  end
  status.o = order
  if ttl >= 0 then
    redis.call('PEXPIRE', key, ttl)
  elseif have then
    redis.call('PERSIST', key)
  end
  if string.sub(new, 21, 21) == TERMINAL then
    redis.pcall('PUBLISH', prefix .. 'w:' .. id, '1')
  end
  return true
end

local function live_at_least(key, had, ttl)
  if ttl == -1 then
    redis.call('PERSIST', key)
  elseif had == -2 or (had >= 0 and had < ttl) then
    redis.call('PEXPIRE', key, ttl + INDEX_SLACK)
  end
end

-- Call last, once for all statuses written.
local function write_index(prefix)
  for bucket, ttl in pairs(index_life) do
    local key, hours = prefix .. 'i:' .. bucket, prefix .. 'i'
    local had = redis.call('PTTL', key)
    local ids = indexed[bucket]
    if ids then
      in_chunks(ids, function(first, last)
        redis.call('ZADD', key, unpack(ids, first, last))
      end)
    end
    if had == -2 or (ttl == -1 and had ~= -1) or (had >= 0 and had < ttl) then
      local hours_had = redis.call('PTTL', hours)
      redis.call('ZADD', hours, bucket, bucket)
      live_at_least(key, had, ttl)
      live_at_least(hours, hours_had, ttl)
    end
  end
end
