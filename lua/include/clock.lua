-- clock: the server's time in µs, read once, always later than the last time seen: where the server's clock stands or
-- was set back, each script that writes still has a µs of its own, and so every token of an id is larger than the last,
-- also when the job was deleted and enqueued again in between.
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
  if seen >= now then
    now = seen + 1
  end
  return now
end
