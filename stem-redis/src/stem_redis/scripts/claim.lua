-- Hands out messages that wait, when nothing is due: no scheduled message, and no lease that may have ended. Otherwise
-- answers nil, and claim_due.lua must do it. The same effect as there, for half the time.
-- KEYS: roots. ARGV: most messages, lease ms. Answers {now ms, ms until there may be more, list of {root's index, level,
-- entries, {}}}.
local MOST, MANY = 4000, 1000000 -- messages, as many as unpack() can hand on; roots
local left, lease, call = math.min(ARGV[1], MOST), tonumber(ARGV[2]), redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local next_due, places, out = now + HORIZON, {}, {}

for index, root in ipairs(KEYS) do
  local due = call('ZRANGE', root .. ':d', 0, 0, 'WITHSCORES')[2]
  local ends = call('ZRANGE', root .. ':leases', 0, 0, 'WITHSCORES')[2]
  next_due = math.min(next_due, due or next_due, ends or next_due)
  for _, level in ipairs(call('SMEMBERS', root .. ':levels')) do
    places[#places + 1] = (9 - level) * MANY + index
  end
end
if next_due <= now then
  return nil
end
if places[2] then
  table.sort(places) -- the highest level first, and in each the roots in their order
end

for _, place in ipairs(places) do
  local level, index = 9 - math.floor(place / MANY), place % MANY
  local root = KEYS[index]
  local stream = root .. ':s' .. level
  local last = last_handed_out(stream)
  if not last then -- an operator removed it
    return nil
  end
  local entries = call('XRANGE', stream, '(' .. last, '+', 'COUNT', left + 1)
  local more = entries[left + 1]
  entries[left + 1] = nil
  if entries[1] then
    if not out[1] then
      call('DEL', root .. ':none') -- as unblock() in common.lua does
    end
    local args = {}
    for n, entry in ipairs(entries) do
      args[n] = entry[1]
    end
    left = left - #args
    call('XCLAIM', stream, GROUP, OWNER, 0, unpack(with_lease(args, lease, true)))
    out[#out + 1] = { index, level, entries, {} }
    local ends = lease_ends(now, lease)
    call('ZADD', root .. ':leases', ends, ends)
    next_due = math.min(next_due, ends)
  end
  if more then
    ring(root) -- more than we may take: the next worker should look
  end
end

for _, root in ipairs(KEYS) do
  if not out[1] then
    call('DEL', root .. ':bell')
  elseif next_due < now + HORIZON then
    ring(root) -- we are busy now: another idle worker should know of what comes next
  end
end
return { now, math.max(0, next_due - now), out }
