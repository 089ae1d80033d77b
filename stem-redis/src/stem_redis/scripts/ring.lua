-- Rings the bells of queues, for a worker that took one and may not have looked. KEYS: roots.
for _, root in ipairs(KEYS) do
  ring(root)
end
return 1
