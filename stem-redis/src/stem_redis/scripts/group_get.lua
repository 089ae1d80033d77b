-- Reads a group. ARGV: prefix, id, 1 with payloads. Answers its fields, flat: without 'c', and what was asked for.
local key = ARGV[1] .. 'g:' .. ARGV[2]
local all = redis.call('HGETALL', key)
local out = {}
for n = 1, #all, 2 do
  local name = all[n]
  if name ~= 'c' and (ARGV[3] == '1' or string.sub(name, 1, 2) ~= 'p:') then
    out[#out + 1] = name
    out[#out + 1] = all[n + 1]
  end
end
return out
