-- Groups. A member's outcome counts once; see keys.py for the fields.

-- Adds an outcome. Its row is after `at`: group, member, 1 if it succeeded, info's size, payload's size or -1.
-- Answers left, and whether this member completes the group, and whether it did so just now.
local OUTCOME = 5

local function add_outcome(prefix, rows, at, cut)
  local key, member, succeeded = prefix .. 'g:' .. rows[at + 1], rows[at + 2], rows[at + 3]
  local info = cut(rows[at + 4])
  local payload = rows[at + 5] >= 0 and cut(rows[at + 5]) or nil
  local got = redis.call('HMGET', key, 'm:' .. member, 'n', 'b', 'ttl', 'c')
  if not got[1] then
    return 0, false, false
  end
  local left, by = tonumber(got[2]), got[3]
  redis.call('PEXPIRE', key, got[4])
  if got[1] ~= '' then
    return left, by == member, false
  end
  left = left - 1
  redis.call('HSET', key, 'm:' .. member, info, 'n', left)
  if payload then
    redis.call('HSET', key, 'p:' .. member, payload)
  end
  if by or not (left == 0 or (got[5] and succeeded == 0)) then
    return left, false, false
  end
  redis.call('HSET', key, 'b', member)
  return left, true, true
end
