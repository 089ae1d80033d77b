-- ARGV: prefix, key. Answers {value or false, version, seconds, microseconds}.
local got = redis.call('HMGET', ARGV[1] .. 's:' .. ARGV[2], 'v', 'n')
local now = redis.call('TIME')
return { got[1], got[2] or '0', now[1], now[2] }
