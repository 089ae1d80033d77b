-- What every script starts with. Keys are documented in keys.py.
--
-- A script that finishes work calls unblock() first: a server over its maxmemory refuses a script's first
-- write if that may grow memory, but lets a script go on that has written already. Finishing frees memory.

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function unblock(root)
  redis.call('DEL', root .. ':none')
end

-- unpack() is bounded by Lua's C stack.
local CHUNK = 1000

local function in_chunks(list, call)
  for first = 1, #list, CHUNK do
    call(first, math.min(first + CHUNK - 1, #list))
  end
end

-- Rows come as one flat array, read by position: tables for each would cost as much as the commands do.
-- Binary parts come beside it as one string, cut by the sizes in the rows: the servers' msgpack has no bytes.
local function cutter(body)
  local at = 1
  return function(size)
    local part = string.sub(body, at, at + size - 1)
    at = at + size
    return part
  end
end
