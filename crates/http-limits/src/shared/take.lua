-- The generic cell rate algorithm for several limits at once: a request is counted under all of them or under none.
-- KEYS: one a limit. ARGV: interval and window of each. All times are ticks: a ten-millionth of a second, counted from
-- September 2020, so that every number is a whole one that a double holds exactly until 2049.
local time = redis.call('TIME')
local now = (time[1] - 1600000000) * 10000000 + time[2] * 10
local after = {}
for i, key in ipairs(KEYS) do
  local interval, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local due = tonumber(redis.call('GET', key) or now) or now
  if due - now > window then
    -- None of ours: the clock was set back, and nobody waits for that longer than the window.
    due = now + window
    redis.call('SET', key, string.format('%.0f', due), 'PX', math.ceil(window / 10000))
  end
  local debt = math.max(due - now, 0)
  after[i] = debt + interval
  if after[i] > window then
    return {0, i - 1, after[i] - window}
  end
end
local answer = {1}
for i, key in ipairs(KEYS) do
  local interval, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  -- When nothing is owed any more, nothing is kept.
  redis.call('SET', key, string.format('%.0f', now + after[i]), 'PX', math.ceil(after[i] / 10000))
  answer[3 * i - 1] = after[i] - interval
  answer[3 * i] = math.floor((window - after[i]) / interval)
  answer[3 * i + 1] = after[i]
end
return answer
