-- Looks through one index bucket, newest id first. ARGV: prefix, bucket, the lexical bound to start below ('+':
-- the newest), most ids to look at, most to answer, msgpack of {states, names, queues} (empty: any).
-- Answers {ids that match, the last id looked at or '' at the end}.
local prefix, bucket, most = ARGV[1], ARGV[2], tonumber(ARGV[5])

local function set_of(list)
  local set = {}
  for _, value in ipairs(list) do
    set[value] = true
  end
  return #list > 0 and set or nil
end

local filters = cmsgpack.unpack(ARGV[6])
local states, names, queues = set_of(filters[1]), set_of(filters[2]), set_of(filters[3])
local found, last = {}, ''
local ids = redis.call('ZREVRANGEBYLEX', prefix .. 'i:' .. bucket, ARGV[3], '-', 'LIMIT', 0, ARGV[4])
for _, id in ipairs(ids) do
  last = id
  local f = redis.call('HMGET', prefix .. 't:' .. id, 'o', 'i', 'n', 'q')
  if
    f[1]
    and f[2] == bucket
    and (not states or states[string.match(f[1], '^%a+', 23)])
    and (not names or names[f[3]])
    and (not queues or queues[f[4]])
  then
    found[#found + 1] = id
    if #found == most then
      break
    end
  end
end
if #found < most and #ids < tonumber(ARGV[4]) then
  last = ''
end
return { found, last }
