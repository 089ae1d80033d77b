-- Fencing: a receipt is (stream, entry, delivery count). A count only grows, and what is given back
-- becomes a new entry, so no receipt is ever made twice.

local held, finished = {}, {}

-- The stream of the row after `at`: root's index, level, entry, delivery count, ...
local names = {}
local function stream_of(roots, rows, at)
  local index, level = rows[at + 1], rows[at + 2]
  local name = names[index * 10 + level]
  if not name then
    name = roots[index] .. ':s' .. level
    names[index * 10 + level] = name
  end
  return name
end

-- Looks up the pending entries of many receipts at once: those of the rows at `places`.
local function look_up(roots, rows, places)
  local ranges = {}
  for _, at in ipairs(places) do
    local stream, entry = stream_of(roots, rows, at), rows[at + 3]
    local range = ranges[stream]
    if range then
      range.last, range.n = entry, range.n + 1
    else
      ranges[stream] = { first = entry, last = entry, n = 1 }
    end
  end
  for stream, range in pairs(ranges) do
    local map = {}
    held[stream] = map
    if range.n > 1 then
      local pending = redis.pcall('XPENDING', stream, GROUP, range.first, range.last, 2 * range.n + 10)
      if not pending.err then
        for _, entry in ipairs(pending) do
          map[entry[1]] = entry[4]
        end
      end
    end
  end
end

local function holds(stream, entry, count)
  local map = held[stream]
  local found = map[entry]
  if found == nil then
    local pending = redis.pcall('XPENDING', stream, GROUP, entry, entry, 1)
    found = not pending.err and pending[1] and pending[1][4] or false
    map[entry] = found
  end
  return found == count
end

local function finish(root, level, stream, entry)
  held[stream][entry] = false
  local list = finished[stream]
  if not list then
    list = { root = root, level = level }
    finished[stream] = list
  end
  list[#list + 1] = entry
end

-- Settles one delivery, which must be held. Its row is after `at`: root's index, level, entry, count, id, once, what,
-- and two more:  'a' ack   'r' retry, delay ms   'l' release, delay ms   'd' dead letter, reason, detail
-- False when an operator removed the entry from under the lease.
local SETTLEMENT = 9

local function settle(root, stream, rows, at, now, once_ttl)
  local level, entry, id, once, what = rows[at + 2], rows[at + 3], rows[at + 5], rows[at + 6], rows[at + 7]
  if what == 'a' then
    if once == 1 then
      forget_once(root, id, once_ttl)
    end
    count(root, 'acked', 1)
    finish(root, level, stream, entry)
    return true
  end
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  finish(root, level, stream, entry)
  if not found then
    return false
  end
  local fields = found[2]
  local g, a, d, o = parse_counts(fields[6])
  if what == 'r' then
    add_or_schedule(root, level, id, fields[4], counts_of(g, a + 1, 0, o), rows[at + 8], now)
  elseif what == 'l' then
    add_or_schedule(root, level, id, fields[4], counts_of(g, a, d + rows[at + 4] - 1, o), rows[at + 8], now)
  else
    local counts = g .. ' ' .. a .. ' 0 ' .. o
    local reason, detail = rows[at + 8], rows[at + 9]
    redis.call('XADD', root .. ':x', '*', 'i', id, 'e', fields[4], 'c', counts, 'r', reason, 't', detail, 'l', level)
  end
  return true
end

-- Removes what was settled, once for all of a stream.
local function write_finished()
  for stream, list in pairs(finished) do
    in_chunks(list, function(first, last)
      redis.call('XACK', stream, GROUP, unpack(list, first, last))
      redis.call('XDEL', stream, unpack(list, first, last))
    end)
    rest(list.root, list.level)
  end
  write_counts()
  local seen = {}
  for _, list in pairs(finished) do
    if not seen[list.root] then
      seen[list.root] = true
      rest_counts(list.root)
    end
  end
end
