-- clock: the server's time in µs, read once, never behind the last time seen.
-- given: '' in production; tests pass the time in µs. last: meta.clock as stored, or false.
local function clock(given, last)
  local now
  if given ~= '' then
    now = tonumber(given)
  else
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  end
  local seen = tonumber(last or 0)
  if seen > now then
    now = seen
  end
  return now
end
