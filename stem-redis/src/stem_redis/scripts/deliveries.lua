-- Messages that were published: put back, leased, gone.

local STREAM_LIFE, COUNTS_LIFE = 86400000, 2592000000 -- ms

local function add_or_schedule(root, level, id, sealed, counts, delay, now)
  if delay > 0 then
    schedule(root, level, id, sealed, counts, now + 1 + delay, now)
  else
    add(root, level, id, sealed, counts)
    ring(root)
  end
end

local function counts_of(generation, attempt, deliveries, once)
  if generation + attempt + deliveries + once == 0 then
    return nil
  end
  return generation .. ' ' .. attempt .. ' ' .. deliveries .. ' ' .. once
end

local function parse_counts(text)
  if not text then
    return 0, 0, 0, 0
  end
  local g, a, d, o = string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
  return tonumber(g), tonumber(a), tonumber(d), tonumber(o)
end

-- The id may be published again once_ttl from now.
local function forget_once(root, id, once_ttl)
  redis.call('PEXPIRE', root .. ':once:' .. id, once_ttl)
end

-- Call for each level that may have lost its last message.
local function rest(root, level)
  local stream = root .. ':s' .. level
  if redis.call('XLEN', stream) > 0 then
    return
  end
  redis.call('SREM', root .. ':levels', level)
  redis.call('PEXPIRE', stream, STREAM_LIFE)
  awake[stream] = nil
  if redis.call('EXISTS', root .. ':levels') == 0 then
    redis.call('DEL', root .. ':leases')
  end
end

-- Call last, after write_counts.
local function rest_counts(root)
  if redis.call('EXISTS', root .. ':levels', root .. ':d') == 0 then
    redis.call('PEXPIRE', root .. ':counts', COUNTS_LIFE)
  end
end

local function note_lease(root, ends)
  redis.call('ZADD', root .. ':leases', ends, ends)
end

local function lease_entries(stream, ids, lease, forced)
  in_chunks(ids, function(first, last)
    redis.call('XCLAIM', stream, GROUP, OWNER, 0, unpack(with_lease({ unpack(ids, first, last) }, lease, forced)))
  end)
end
