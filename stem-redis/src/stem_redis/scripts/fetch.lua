-- Reads statuses. ARGV: prefix, msgpack of ids. Answers the fields of each, flat.
local out = {}
for n, id in ipairs(cmsgpack.unpack(ARGV[2])) do
  out[n] = redis.call('HGETALL', ARGV[1] .. 't:' .. id)
end
return out
