-- Bans of all hosts: takes what one host has to tell, answers what it has not heard yet. Times are milliseconds.
-- KEYS: records by client, clients by number of their last change, clients by the time to forget them, epoch and number of
-- changes. ARGV: the epoch and the number that the host knows, how much it wants to hear at once, how many records there may be,
-- a name for an epoch that begins now; then for each change the client, how long it is banned, how long that is remembered
-- afterwards, how often in a row, and a letter: o for offences, p for the operator, x for a pardon; O and P for what is no change
-- but only known: it holds where nothing else is known.
local records, changes, ends, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function forget(client)
  redis.call('HDEL', records, client)
  redis.call('ZREM', changes, client)
  redis.call('ZREM', ends, client)
end

local epoch = redis.call('HGET', state, 'epoch')
if not epoch then
  epoch = ARGV[5]
  redis.call('HSET', state, 'epoch', epoch)
  redis.call('PEXPIRE', state, 800 * 24 * 3600 * 1000)
end
local number = tonumber(redis.call('HGET', state, 'number') or 0)
local known = tonumber(ARGV[2])
if epoch ~= ARGV[1] or known > number then
  -- What the host has heard was of another time: this Redis was emptied, or remembers less than it did.
  known = 0
end
for _, client in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 500)) do
  forget(client)
end

for i = 6, #ARGV, 5 do
  local client, left, after, times, why = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4]
  local ending, _, _, before = string.match(redis.call('HGET', records, client) or '', '(%d+) (%d+) (%d+) (%a)')
  -- Of two bans for offences the longer one holds; what the operator says holds in any case.
  local longer = not before or tonumber(ending) < now + left
  local holds = longer or why == 'p' or why == 'x' or before == 'x'
  if why == 'O' or why == 'P' then
    holds = not before or longer and why == 'O' and before == 'o'
    why = string.lower(why)
  end
  if holds then
    number = number + 1
    redis.call('HSET', records, client, string.format('%.0f %.0f %s %s', now + left, left, times, why))
    redis.call('ZADD', changes, number, client)
    redis.call('ZADD', ends, now + left + after, client)
  end
end
if #ARGV > 5 then
  redis.call('HSET', state, 'number', number)
  while redis.call('ZCARD', ends) > tonumber(ARGV[4]) do
    forget(redis.call('ZRANGE', ends, 0, 0)[1])
  end
  for _, key in ipairs(KEYS) do
    -- Nobody is banned for longer than a year, or remembered for longer than that.
    redis.call('PEXPIRE', key, 800 * 24 * 3600 * 1000)
  end
end

local page = tonumber(ARGV[3])
local news = redis.call('ZRANGEBYSCORE', changes, '(' .. known, '+inf', 'WITHSCORES', 'LIMIT', 0, page)
local more = #news / 2 == page
local answer = {epoch, more and tonumber(news[#news]) or number, more and 1 or 0}
for i = 1, #news, 2 do
  local ending, whole, times, why = string.match(redis.call('HGET', records, news[i]) or '', '(%d+) (%d+) (%d+) (%a)')
  if ending then
    -- A clock that was set back makes no ban longer than it was.
    local left = math.min(math.max(ending - now, 0), tonumber(whole))
    for _, part in ipairs({news[i], left, math.max(now - ending, 0), tonumber(times), why}) do
      answer[#answer + 1] = part
    end
  end
end
return answer
