-- What several scripts must agree on. Numbers cost a call nothing; functions and tables do.

local GROUP = 'stem'
local HORIZON = 5000 -- ms. Idle workers look at least so often, so later events need no bell.
local BELL_LIFE = 60000 -- ms
-- Milliseconds a status of a long life may outlive it, so that one that ends soon need not be renewed.
local LONG_LIFE, LIFE_SLACK = 3600000, 60000
local NEVER = '9999999999'
-- Of field o (see status.lua): generation, attempt and rank 0, no field of a state.
local FIRST = '0000000000000000000000'
