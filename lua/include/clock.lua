-- clock: the server's time in µs, read once. Returns now, the time as it is: due times, leases, grace and windows are
-- decided by it; and the stamp, for tokens and for `meta.clock`: later than the last stamp also where the server's
-- clock stands or was set back, so that every token of an id is larger than the last, also when the job was deleted
-- and enqueued again in between. Example: the clock is set back from 10:00:05 to 10:00:00; now is 10:00:00, the stamp
-- is 10:00:05 and one µs.
-- given: '' in production; tests pass the time in µs. last: meta.clock as stored, or false; one that is no time before
-- the year 2255 is damage, and counts for nothing.
local function clock(given, last)
  local now
  if given ~= '' then
    now = tonumber(given)
  else
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  end
  local floor = tonumber(last or 0)
  if floor and floor >= now and floor < 9e15 then
    return now, math.floor(floor) + 1
  end
  return now, now
end
