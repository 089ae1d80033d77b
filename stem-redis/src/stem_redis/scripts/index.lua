-- How long statuses live, and the index of them.

local INDEX_SLACK = 3600000 -- ms an index may outlive its last status, so that it is not renewed at each write

local index_life, expiries = {}, {}

local function index_key(prefix, bucket)
  return prefix .. 'i:' .. tonumber(bucket)
end

local function index_lives(bucket, ttl)
  local life = index_life[bucket]
  if not life or (life ~= -1 and (ttl == -1 or ttl > life)) then
    index_life[bucket] = ttl
  end
end

-- Milliseconds a status of a long life may outlive it, so that one that ends soon need not be renewed.
local LONG_LIFE, LIFE_SLACK = 3600000, 60000
local NEVER = '9999999999'

-- When a status that expires at `have` shall expire after a write, as in field o, and what that takes: the ms to set,
-- -1 to keep it for ever, nil when nothing is to do.
local function expiry(have, ttl, now)
  if ttl < 0 then
    return NEVER, have and have ~= NEVER and -1 or nil
  end
  if ttl >= LONG_LIFE then
    local left = have and have ~= NEVER and have * 1000 - now or 0
    if left >= ttl and left <= ttl + LIFE_SLACK then
      return have, nil
    end
    ttl = ttl + LIFE_SLACK
  end
  local text = expiries[ttl]
  if not text then
    text = string.format('%010d', math.floor((now + ttl) / 1000))
    expiries[ttl] = text
  end
  return text, ttl
end

local function live_at_least(key, had, ttl)
  if ttl == -1 then
    redis.call('PERSIST', key)
  elseif had == -2 or (had >= 0 and had < ttl) then
    redis.call('PEXPIRE', key, ttl + INDEX_SLACK)
  end
end

-- Makes the index of an hour, of which PTTL said `had` before it was written, live as long as its statuses.
local function renew_index(prefix, bucket, had, ttl)
  local hour, hours = tonumber(bucket), prefix .. 'i'
  if had == -2 or (ttl == -1 and had ~= -1) or (had >= 0 and had < ttl) then
    local hours_had = redis.call('PTTL', hours)
    redis.call('ZADD', hours, hour, hour)
    live_at_least(index_key(prefix, bucket), had, ttl)
    live_at_least(hours, hours_had, ttl)
  end
end
