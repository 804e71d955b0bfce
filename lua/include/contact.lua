-- contact: note that a worker reached Redis, and open a grace period after a gap in which none could.
-- A gap is longer than half a lease: heartbeats come every third of one. Until `grace` (ms) nothing is reaped,
-- so that every worker that lived through the gap can renew its leases first.
-- Example: lease 30 s, Redis away from 10:00:00 to 10:02:30; the first contact sets grace to 10:03:00.
-- stored: clock, beat, grace, lease from meta. lease: of this caller in ms, 0 when it does not know.
-- Returns the end of the grace period in ms, 0 when there is none.
local function contact(meta, now, beat, grace, stored_lease, lease)
  local longest = tonumber(stored_lease or 0)
  local text = string.format('%.0f', now)
  local ends = tonumber(grace or 0)
  local now_ms = math.floor(now / 1000)
  local limit = longest > lease and longest or lease
  if lease > longest then
    redis.call('HSET', meta, 'lease', string.format('%.0f', lease))
  end
  if beat and limit > 0 and now - tonumber(beat) > limit * 500 then
    ends = now_ms + limit
    redis.call('HSET', meta, 'clock', text, 'beat', text, 'grace', string.format('%.0f', ends))
  else
    redis.call('HSET', meta, 'clock', text, 'beat', text)
  end
  if ends > now_ms then
    return ends
  end
  return 0
end
