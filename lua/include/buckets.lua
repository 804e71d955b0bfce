-- buckets: where each job of a batch goes. ARGV names day buckets, for each its day and that day's first ms; each job
-- says when: 15 digits of ms, or '+' and a delay in ms from now. The script finds the bucket of each fire time.
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

-- named: the buckets that ARGV names from `first` on: their number, then each one's day and first ms. Returns the
-- number of each bucket by its first ms, and where ARGV goes on.
local function named(first)
  local count, numbers = tonumber(ARGV[first]), {}
  for b = 1, count do
    numbers[tonumber(ARGV[first + 2 * b])] = b
  end
  return numbers, first + 1 + 2 * count
end

-- bucket_of: the number of the bucket that a fire time belongs to, nil when it is not among the named ones.
local function bucket_of(numbers, fire)
  return numbers[fire - fire % DAY]
end
