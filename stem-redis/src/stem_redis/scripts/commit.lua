-- Does steps, each all or nothing: what may refuse one is looked at before anything of it is written.
-- KEYS: roots. ARGV: prefix, once_ttl ms, msgpack of steps, binary parts in one string. Answers '1' or '0' of each.
-- A step, in one flat array with the others: how many items follow, the size of its parts, 1 and a settlement row or
-- 0, then a count and so many rows of statuses, of messages, and of outcomes.
local prefix, once_ttl, rows = ARGV[1], tonumber(ARGV[2]), cmsgpack.unpack(ARGV[3])
local cut, now, out = cutter(ARGV[4]), now_ms(), {}

local receipts, at = {}, 0
while at < #rows do
  if rows[at + 3] == 1 then
    receipts[#receipts + 1] = at + 3
  end
  at = at + 1 + rows[at + 1]
end
if #receipts > 0 then
  unblock(KEYS[1])
  look_up(KEYS, rows, receipts)
end

-- Whether no terminal update of `n` would be refused, each seen after those before it.
local function none_refused(place, n)
  if n == 1 then
    local new = rows[place + 2]
    return byte(new, 21) ~= TERMINAL or may_follow(order_of(prefix, rows[place + 1]), new)
  end
  local after = {}
  for _ = 1, n do
    local id, new = rows[place + 1], rows[place + 2]
    if may_follow(after[id] or order_of(prefix, id), new) then
      after[id] = new
    elseif byte(new, 21) == TERMINAL then
      return false
    end
    place = after_status(rows, place)
  end
  return true
end

local function complete(group)
  for _, row in ipairs(cmsgpack.unpack(redis.call('HGET', prefix .. 'g:' .. group, 'c') or '\144')) do
    publish(row[1], row[2], 0, row[4], now)
    write_status(prefix, row[3], 0, cutter(row[5]), now)
  end
end

-- Writes the statuses, messages and outcomes that begin after `place`.
local function write(place)
  local n = rows[place + 1]
  place = place + 1
  for _ = 1, n do
    write_status(prefix, rows, place, cut, now)
    place = after_status(rows, place)
  end
  n = rows[place + 1]
  place = place + 1
  for _ = 1, n do
    publish(KEYS[rows[place + 1]], rows, place, cut(rows[place + 4]), now)
    place = place + MESSAGE
  end
  n = rows[place + 1]
  place = place + 1
  for _ = 1, n do
    local _, _, just_now = add_outcome(prefix, rows, place, cut)
    if just_now then
      complete(rows[place + 1])
    end
    place = place + OUTCOME
  end
end

local function do_step(place)
  local updates = place + 3
  if rows[place + 3] == 0 then
    if not none_refused(updates + 1, rows[updates + 1]) then
      return false
    end
  else
    updates = updates + SETTLEMENT
    local stream = stream_of(KEYS, rows, place + 3)
    if
      not holds(stream, rows[place + 6], rows[place + 7])
      or not none_refused(updates + 1, rows[updates + 1])
      or not settle(KEYS[rows[place + 4]], stream, rows, place + 3, now, once_ttl)
    then
      return false
    end
  end
  write(updates)
  return true
end

at = 0
while at < #rows do
  local done = do_step(at)
  if not done then
    cut(rows[at + 2])
  end
  out[#out + 1] = done and 1 or 0
  at = at + 1 + rows[at + 1]
end
write_finished()
write_statuses(prefix)
return table.concat(out)
