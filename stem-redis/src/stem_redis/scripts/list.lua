-- Looks through one index bucket, newest first. ARGV: prefix, hour, the position to start below (-1: the end),
-- most ids to look at, most to answer, msgpack of {states, names, queues} (empty: any).
-- Answers {flat list of id and position of what matches, the last position looked at}; 0 is the end.
local prefix, hour, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[5])
local key = prefix .. 'i:' .. hour

local function set_of(list)
  local set = {}
  for _, value in ipairs(list) do
    set[value] = true
  end
  return #list > 0 and set or nil
end

local filters = cmsgpack.unpack(ARGV[6])
local states, names, queues = set_of(filters[1]), set_of(filters[2]), set_of(filters[3])
local below = tonumber(ARGV[3])
if below < 0 then
  below = redis.call('LLEN', key)
end
local from = math.max(0, below - ARGV[4])
local ids = below > 0 and redis.call('LRANGE', key, from, below - 1) or {}
local found, at = {}, from
for n = #ids, 1, -1 do
  local f = redis.call('HMGET', prefix .. 't:' .. ids[n], 'o', 'n', 'q')
  local position = from + n - 1
  if
    f[1]
    and string.sub(f[1], 23, 40) == string.format('%08d%010d', hour, position)
    and (not states or states[string.match(f[1], '^%a+', 51)])
    and (not names or names[f[2]])
    and (not queues or queues[f[3]])
  then
    found[#found + 1], found[#found + 2] = ids[n], position
    if #found == 2 * most then
      at = position
      break
    end
  end
end
return { found, at }
