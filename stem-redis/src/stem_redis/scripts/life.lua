-- How long statuses live.

local expiries = {}

-- When a status that expires at `have` shall expire after a write, as in field o, and what that takes: the ms to set,
-- -1 to keep it for ever, nil when nothing is to do.
local function expiry(have, ttl, now)
  if ttl < 0 then
    return NEVER, have and have ~= NEVER and -1 or nil
  end
  if ttl >= LONG_LIFE then
    local left = have and have ~= NEVER and have * 1000 - now or 0
    if left >= ttl and left <= ttl + LIFE_SLACK then
      return have, nil
    end
    ttl = ttl + LIFE_SLACK
  end
  local text = expiries[ttl]
  if not text then
    text = string.format('%010d', math.floor((now + ttl) / 1000))
    expiries[ttl] = text
  end
  return text, ttl
end
