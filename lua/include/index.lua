-- index: the day buckets by name. day_start: the first ms of the day that `name`, yyyymmdd, means; nil when it is none.
-- Example: 20300317 is 1899936000000.
local function day_start(name)
  local year, month, day = string.match(name, '^(%d%d%d%d)(%d%d)(%d%d)$')
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  if not year or year < 1970 or month < 1 or month > 12 or day < 1 or day > 31 then
    return nil
  end
  -- Days since 1970 by years that begin in March, so that a leap day is a year's last.
  if month < 3 then
    year, month = year - 1, month + 12
  end
  local days = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * month - 457) / 5) + day - 719469
  return days * 86400000
end

-- earliest: the earliest day of the index and its first ms, nil when there is none. What is no day, or stands elsewhere
-- than at its own number, would hide the days behind it: it goes, or is put right, up to 10,000 of them in one call.
-- Where there are more, what comes first then has no first ms: the next call goes on with the rest.
local function earliest(days)
  for _ = 1, 10 do
    local head = redis.call('ZRANGE', days, 0, 0, 'WITHSCORES')
    if not head[1] then
      return nil
    end
    local start = day_start(head[1])
    if start and tonumber(head[2]) == tonumber(head[1]) then
      return head[1], start
    end
    local page = redis.call('ZRANGE', days, 0, 999)
    local right, wrong = {}, {}
    for i = 1, #page do
      if day_start(page[i]) then
        right[#right + 1] = page[i]
        right[#right + 1] = page[i]
      else
        wrong[#wrong + 1] = page[i]
      end
    end
    if #right > 0 then
      redis.call('ZADD', days, unpack(right))
    end
    if #wrong > 0 then
      redis.call('ZREM', days, unpack(wrong))
    end
  end
  return redis.call('ZRANGE', days, 0, 0)[1]
end
