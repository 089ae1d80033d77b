-- Leases: pending entries of the one consumer, whose idle time says when they end.

local OWNER = 'w'
local FOREVER = 315360000000 -- ms. A lease has ended when its entry was idle for so long.
local GRID, MARGIN = 20, 5 -- ms, of R:leases

local function lease_ends(now, lease)
  return math.ceil((now + lease + 1 + MARGIN) / GRID) * GRID
end

-- Adds to ids what XCLAIM needs to lease these entries.
local function with_lease(ids, lease, forced)
  local n = #ids
  local last = ids[n]
  ids[n + 1], ids[n + 2], ids[n + 3] = 'IDLE', FOREVER - lease - 1, 'JUSTID'
  if forced then -- not handed out before: makes the pending entry, with a delivery count of 1
    ids[n + 4], ids[n + 5], ids[n + 6] = 'FORCE', 'LASTID', last
  end
  return ids
end

-- The id of the last entry handed out, or nil where there is no such stream.
local function last_handed_out(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then
    return nil
  end
  if not groups[1] then
    make_group(stream)
    return '0-0'
  end
  local group = groups[1]
  for at = 1, #group, 2 do
    if group[at] == 'last-delivered-id' then
      return group[at + 1]
    end
  end
end
