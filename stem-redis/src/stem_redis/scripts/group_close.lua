-- Closes an open group. ARGV: prefix, id, reason. Answers {left, 1 if this reason closed it, now or before}.
local key = ARGV[1] .. 'g:' .. ARGV[2]
local got = redis.call('HMGET', key, 'n', 'b', 'x')
if not got[1] then
  return { 0, 0 }
end
if not got[2] then
  redis.call('HSET', key, 'b', '', 'x', ARGV[3])
  return { tonumber(got[1]), 1 }
end
return { tonumber(got[1]), got[3] == ARGV[3] and 1 or 0 }
