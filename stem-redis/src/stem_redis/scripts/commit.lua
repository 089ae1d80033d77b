-- Does steps, each all or nothing: what may refuse one is looked at before anything of it is written.
-- KEYS: roots. ARGV: prefix, once_ttl ms, msgpack of steps {settlement row or false, status rows, message rows,
-- outcome rows}, binary parts in one string. Answers '1' or '0' of each.
local prefix, once_ttl, steps, cut = ARGV[1], tonumber(ARGV[2]), cmsgpack.unpack(ARGV[3]), cutter(ARGV[4])
local now, out, receipts = now_ms(), {}, {}

for _, step in ipairs(steps) do
  if step[1] then
    receipts[#receipts + 1] = step[1]
  end
end
if #receipts > 0 then
  unblock(KEYS[1])
  look_up(KEYS, receipts)
end

-- Whether no terminal update of the step would be refused, each seen after those before it.
local function none_refused(updates)
  local after = {}
  for _, row in ipairs(updates) do
    local order = after[row[1]] or order_of(prefix, row[1])
    if may_follow(order, row[2]) then
      after[row[1]] = row[2]
    elseif string.sub(row[2], 21, 21) == TERMINAL then
      return false
    end
  end
  return true
end

local function complete(group)
  for _, row in ipairs(cmsgpack.unpack(redis.call('HGET', prefix .. 'g:' .. group, 'c') or '\144')) do
    publish(row[1], row[2], row[3], now)
    write_status(prefix, row[4], cutter(row[5]))
  end
end

local function skip(step)
  for _, row in ipairs(step[2]) do
    for at = 2, #row[8], 2 do
      cut(row[8][at])
    end
  end
  for _, row in ipairs(step[3]) do
    cut(row[4])
  end
  for _, row in ipairs(step[4]) do
    cut(row[4])
    cut(math.max(row[5], 0))
  end
end

local function do_step(step)
  local row = step[1]
  if row and not settle(KEYS[row[1]], row, now, once_ttl) then
    skip(step)
    return 0
  end
  for _, update in ipairs(step[2]) do
    write_status(prefix, update, cut)
  end
  for _, message in ipairs(step[3]) do
    publish(KEYS[message[1]], message, cut(message[4]), now)
  end
  for _, outcome in ipairs(step[4]) do
    local _, _, just_now = add_outcome(prefix, outcome, cut)
    if just_now then
      complete(outcome[1])
    end
  end
  return 1
end

for n, step in ipairs(steps) do
  local row = step[1]
  local held_now = not row or holds(KEYS[row[1]] .. ':s' .. row[2], row[3], row[4])
  if held_now and none_refused(step[2]) then
    out[n] = do_step(step)
  else
    skip(step)
    out[n] = 0
  end
end
write_finished()
write_index(prefix)
return table.concat(out)
