-- ARGV: prefix, the keys' prefix, the lexical bound to start from, most keys to look at.
-- Answers {flat list of key, value, version, the last key looked at or '' at the end}.
local keys, out = ARGV[1] .. 'sk', {}
local names = redis.call('ZRANGEBYLEX', keys, ARGV[3], '(' .. ARGV[2] .. '\255', 'LIMIT', 0, ARGV[4])
for _, name in ipairs(names) do
  local got = redis.call('HMGET', ARGV[1] .. 's:' .. name, 'v', 'n')
  if got[1] then
    out[#out + 1], out[#out + 2], out[#out + 3] = name, got[1], got[2]
  end
end
return { out, #names == tonumber(ARGV[4]) and names[#names] or '' }
