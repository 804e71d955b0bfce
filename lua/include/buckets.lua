-- buckets: where each job of a batch goes. ARGV names for each bucket its day, the day's first ms and how many of
-- the jobs that follow belong to it; each job says when: 15 digits of ms, or '+' and a delay in ms from now.
-- fire_time: the fire time in ms and as 15 digits. A delay counts from the next whole ms: never early by a fraction.
local DAY = 86400000

local function fire_time(when, now)
  if string.byte(when) == 43 then
    local fire = math.ceil(now / 1000) + tonumber(string.sub(when, 2))
    return fire, string.format('%015.0f', fire)
  end
  return tonumber(when), when
end

-- in_day: whether a fire time lies in the day that starts at `start`.
local function in_day(fire, start)
  return fire >= start and fire < start + DAY
end
