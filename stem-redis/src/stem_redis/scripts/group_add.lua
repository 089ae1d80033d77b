-- Adds one outcome. ARGV: prefix, msgpack of the row (see group.lua), its parts. Answers {left, 1 if complete}.
local left, complete = add_outcome(ARGV[1], cmsgpack.unpack(ARGV[2]), 0, cutter(ARGV[3]))
return { left, complete and 1 or 0 }
