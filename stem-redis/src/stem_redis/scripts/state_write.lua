-- Compare and set. ARGV: prefix, key, value, version expected, ttl ms (-1: for ever).
-- Answers the new version, or false. A version is never given twice: it is at least the time in microseconds.
local PRUNE = 8 -- most expired keys forgotten by one write
local LIFE, SLACK = 86400000, 3600000
local prefix, name, ttl = ARGV[1], ARGV[2], tonumber(ARGV[5])
local key, keys, expiring = prefix .. 's:' .. name, prefix .. 'sk', prefix .. 'sx'
local existing = redis.call('HGET', key, 'n')
if (existing or '0') ~= ARGV[4] then
  return false
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local last = tonumber(redis.call('GET', prefix .. 'sv') or '0')
local version = string.format('%.0f', math.max(last + 1, t[1] * 1000000 + t[2]))
redis.call('SET', prefix .. 'sv', version, 'PX', LIFE)
redis.call('HSET', key, 'v', ARGV[3], 'n', version)
if not existing then
  redis.call('ZADD', keys, 0, name)
end
if ttl == -1 then
  redis.call('PERSIST', key)
  redis.call('PERSIST', keys)
  redis.call('ZREM', expiring, name)
else
  redis.call('PEXPIRE', key, ttl)
  redis.call('ZADD', expiring, now + ttl, name)
end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', expiring, '-inf', now, 'LIMIT', 0, PRUNE)) do
  redis.call('ZREM', expiring, gone)
  if redis.call('EXISTS', prefix .. 's:' .. gone) == 0 then
    redis.call('ZREM', keys, gone)
  end
end
-- Both live as long as their last key; keys that stay have no entry in sx, so sk stays with them.
local last_expiry = redis.call('ZRANGE', expiring, -1, -1, 'WITHSCORES')[2]
if last_expiry then
  local left = tonumber(last_expiry) - now + SLACK
  redis.call('PEXPIRE', expiring, left)
  if redis.call('ZCARD', expiring) == redis.call('ZCARD', keys) then
    redis.call('PEXPIRE', keys, left)
  else
    redis.call('PERSIST', keys)
  end
end
return version
