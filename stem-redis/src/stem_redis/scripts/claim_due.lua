-- Hands out messages: highest level first, levels of one height in the order of the roots, and in each what
-- a lease ended of first. KEYS: roots. ARGV: most messages, lease ms.
-- Answers {now ms, ms until there may be more, list of {root's index, level, entries,
-- delivery counts}}; an empty list of counts means 1 each.
local PROMOTE = 500 -- most scheduled messages moved by one claim, to bound its time

local left, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local now, out, taken = now_ms(), {}, {}
local sweep, unswept, by_level = {}, {}, {}
local next_due = now + HORIZON
unblock(KEYS[1])

local function head_of(key)
  return tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or math.huge)
end

local function promote(root)
  local key = root .. ':d'
  local head = head_of(key)
  if head > now then
    return head
  end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, PROMOTE)) do
    redis.call('ZREM', key, member)
    local m = cmsgpack.unpack(member)
    add(root, m[2], m[3], m[5], m[4] ~= '' and m[4] or nil)
  end
  return head_of(key)
end

local function hand_out(index, level, stream, entries, forced)
  local ids, counts = {}, {}
  for n, entry in ipairs(entries) do
    ids[n] = entry[1]
    if not forced then
      counts[n] = redis.call('XPENDING', stream, GROUP, entry[1], entry[1], 1)[1][4]
    end
  end
  lease_entries(stream, ids, lease, forced)
  left = left - #entries
  taken[index] = true
  out[#out + 1] = { index, level, entries, counts }
end

local function take_ended(index, level, stream)
  local cursor = '0-0'
  repeat
    local found = redis.call('XAUTOCLAIM', stream, GROUP, OWNER, FOREVER, cursor, 'COUNT', math.min(left, 100))
    cursor = found[1]
    if #found[2] > 0 then
      hand_out(index, level, stream, found[2], false)
    end
  until cursor == '0-0' or left == 0
  if cursor == '0-0' then
    unswept[index] = unswept[index] - 1
  end
end

for index, root in ipairs(KEYS) do
  local due = promote(root)
  local ends = head_of(root .. ':leases')
  local levels = redis.call('SMEMBERS', root .. ':levels')
  sweep[index], unswept[index] = ends <= now, #levels
  next_due = math.min(next_due, due, ends)
  for _, level in ipairs(levels) do
    level = tonumber(level)
    by_level[level] = by_level[level] or {}
    table.insert(by_level[level], index)
  end
end

for level = 9, 0, -1 do
  for _, index in ipairs(by_level[level] or {}) do
    local root = KEYS[index]
    local stream = root .. ':s' .. level
    local last = last_handed_out(stream)
    if not last then -- an operator removed it
      redis.call('SREM', root .. ':levels', level)
    else
      if left > 0 and sweep[index] then
        take_ended(index, level, stream)
      end
      local entries = left > 0 and redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', left) or {}
      if #entries > 0 then
        hand_out(index, level, stream, entries, true)
        last = entries[#entries][1]
      end
      if left == 0 and redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1] then
        ring(root) -- more than we may take: the next worker should look
      end
    end
  end
end

for index, root in ipairs(KEYS) do
  if taken[index] then
    local ends = lease_ends(now, lease)
    note_lease(root, ends)
    next_due = math.min(next_due, ends)
  end
  if sweep[index] then
    if unswept[index] == 0 then
      redis.call('ZREMRANGEBYSCORE', root .. ':leases', '-inf', now)
    else
      ring(root)
    end
  end
end

if #out == 0 then
  for _, root in ipairs(KEYS) do
    redis.call('DEL', root .. ':bell')
  end
elseif next_due < now + HORIZON then
  -- We are busy now: another idle worker should know of what comes next.
  for _, root in ipairs(KEYS) do
    ring(root)
  end
end
return { now, math.max(0, next_due - now), out }
