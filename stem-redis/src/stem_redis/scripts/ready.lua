-- Where messages that are ready wait, and the bell that tells of them.

local awake, rung = {}, {}

local function ring(root)
  if rung[root] then
    return
  end
  rung[root] = true
  local bell = root .. ':bell'
  if redis.call('EXISTS', bell) == 0 then
    redis.call('RPUSH', bell, '1')
    redis.call('PEXPIRE', bell, BELL_LIFE)
  end
end

local function make_group(stream)
  redis.pcall('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM') -- BUSYGROUP: it is there
end

-- The stream of a level, about to get a message.
local function wake(root, level)
  local stream = root .. ':s' .. level
  if not awake[stream] then
    if redis.call('SADD', root .. ':levels', level) == 1 then
      if redis.call('PERSIST', stream) == 0 then -- else it is a stream that rested
        make_group(stream)
      end
      redis.call('PERSIST', root .. ':counts')
    end
    awake[stream] = true
  end
  return stream
end
