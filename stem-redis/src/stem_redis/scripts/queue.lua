-- Messages of a queue: published, now or for later.

local tally = {}

local function count(root, what, n)
  local key = root .. ':counts'
  local of = tally[key]
  if not of then
    of = {}
    tally[key] = of
  end
  of[what] = (of[what] or 0) + n
end

local function write_counts()
  for key, of in pairs(tally) do
    for what, n in pairs(of) do
      redis.call('HINCRBY', key, what, n)
    end
  end
end

local function add(root, level, id, sealed, counts)
  local stream = wake(root, level)
  if counts then
    redis.call('XADD', stream, '*', 'i', id, 'e', sealed, 'c', counts)
  else
    redis.call('XADD', stream, '*', 'i', id, 'e', sealed)
  end
end

local function schedule(root, level, id, sealed, counts, due, now)
  local key = root .. ':d'
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  local seq = redis.call('HINCRBY', root .. ':counts', 'seq', 1)
  redis.call('ZADD', key, due, cmsgpack.pack({ seq, level, id, counts or '', sealed }))
  if due - now <= HORIZON and (not head or due < tonumber(head)) then
    ring(root)
  end
end

-- A message as published. Its row is after `at`: root's index, level, id, size, once, due ms, delay ms.
local MESSAGE = 7

local function publish(root, rows, at, sealed, now)
  local level, id, counts = rows[at + 2], rows[at + 3], nil
  if rows[at + 5] == 1 then
    if not redis.call('SET', root .. ':once:' .. id, '1', 'NX') then
      return 0
    end
    counts = '0 0 0 1'
  end
  local due, delay = rows[at + 6], rows[at + 7]
  if delay > 0 then
    due = math.max(due, now + 1 + delay)
  end
  if due > now then
    schedule(root, level, id, sealed, counts, due, now)
  else
    add(root, level, id, sealed, counts)
    ring(root)
  end
  count(root, 'published', 1)
  return 1
end
