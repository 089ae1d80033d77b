-- The index of statuses.

local INDEX_SLACK = 3600000 -- ms an index may outlive its last status, so that it is not renewed at each write

local index_life = {}

local function index_key(prefix, bucket)
  return prefix .. 'i:' .. tonumber(bucket)
end

local function index_lives(bucket, ttl)
  local life = index_life[bucket]
  if not life or (life ~= -1 and (ttl == -1 or ttl > life)) then
    index_life[bucket] = ttl
  end
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
