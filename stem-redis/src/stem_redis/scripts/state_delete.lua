-- ARGV: prefix, key, version expected or ''. Answers 1 if it was removed.
local key = ARGV[1] .. 's:' .. ARGV[2]
local version = redis.call('HGET', key, 'n')
if not version or (ARGV[3] ~= '' and ARGV[3] ~= version) then
  return 0
end
redis.call('DEL', key)
redis.call('ZREM', ARGV[1] .. 'sk', ARGV[2])
redis.call('ZREM', ARGV[1] .. 'sx', ARGV[2])
return 1
