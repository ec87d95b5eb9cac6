-- A request that was counted was not made after all. KEYS: one a limit. ARGV: the interval of each, in ticks (see take.lua).
local time = redis.call('TIME')
local now = (time[1] - 1600000000) * 10000000 + time[2] * 10
for i, key in ipairs(KEYS) do
  local due = tonumber(redis.call('GET', key) or 0) or 0
  local debt = due - tonumber(ARGV[i]) - now
  if debt > 0 then
    redis.call('SET', key, string.format('%.0f', now + debt), 'PX', math.ceil(debt / 10000))
  elseif due > 0 then
    redis.call('DEL', key)
  end
end
return 1
