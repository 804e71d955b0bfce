-- contact: what a worker's call leaves in `meta`, and what a call may believe of what is there.
-- contact: note that a worker reached Redis, and count a step back of the server's clock: `beat` (µs) is the time of
-- the last contact, and no contact comes before another. Half a second is left to a clock that is steered.
-- Example: beat says 10:00:09 and now is 10:00:01; jumps goes up by one, jump becomes '<now> -8000 <last stamp>'.
-- Returns 1 when the clock was set back since the last contact, else 0.
local function contact(meta, now, stamp, beat)
  local last = number(beat, 0)
  local text = string.format('%.0f', now)
  local clock_text = stamp == now and text or string.format('%.0f', stamp)
  if last - now > 500000 then
    local jumps = number(redis.call('HMGET', meta, 'jumps')[1], 0)
    local by = string.format('%.0f', math.floor((now - last) / 1000))
    redis.call('HSET', meta, 'clock', clock_text, 'beat', text, 'jumps', string.format('%.0f', jumps + 1),
      'jump', text .. ' ' .. by .. ' ' .. clock_text)
    return 1
  end
  redis.call('HSET', meta, 'clock', clock_text, 'beat', text)
  return 0
end

-- longest: the longest lease in use, ms, this caller's included. Written when it grows, and each half of it, so that
-- `reap` can forget one that nobody uses any more. stored, seen: `lease` and `leased` (when it was written, ms) of
-- meta.
local function longest(meta, now_ms, lease, stored, seen)
  local known, since = number(stored, 0), number(seen, 0)
  if lease > known or lease == known and math.abs(now_ms - since) * 2 > lease then
    redis.call('HSET', meta, 'lease', string.format('%.0f', lease), 'leased', string.format('%.0f', now_ms))
    return lease
  end
  return known
end

-- believed: the end of something that lasts for at most `most` ms, in ms; else 0: it is over, or it ends later than it
-- can, and was given by a clock that was wrong then or is wrong now.
local function believed(now_ms, text, most)
  local ends = number(text, 0)
  if ends > now_ms and ends <= now_ms + most then
    return ends
  end
  return 0
end
