-- Opens a group. ARGV: prefix, id, ttl ms, definition, msgpack of members, msgpack of callback rows
-- {root, message row, status row, size of the status row's parts}, their binary parts in one string.
-- Answers 1, or 0 when the id is there.
local prefix, ttl, members = ARGV[1], ARGV[3], cmsgpack.unpack(ARGV[5])
local key, cut, callback = prefix .. 'g:' .. ARGV[2], cutter(ARGV[7]), cmsgpack.unpack(ARGV[6])
if redis.call('EXISTS', key) == 1 then
  return 0
end
redis.call('HSET', key, 'd', ARGV[4], 'n', #members, 'ttl', ttl)
redis.call('PEXPIRE', key, ttl)
in_chunks(members, function(first, last)
  local fields = {}
  for n = first, last do
    fields[#fields + 1] = 'm:' .. members[n]
    fields[#fields + 1] = ''
  end
  redis.call('HSET', key, unpack(fields))
end)
if #members == 0 then
  redis.call('HSET', key, 'b', '')
end
if #callback > 0 then
  local rows = {}
  for n, row in ipairs(callback) do
    rows[n] = { row[1], row[2], row[3], cut(row[2][4]), cut(row[4]) }
  end
  redis.call('HSET', key, 'c', cmsgpack.pack(rows))
end
return 1
