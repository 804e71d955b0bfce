-- refile: put claimed jobs back on the wheel, as retry and release do. ARGV from 3 on names the buckets as `buckets`
-- has it, then each job with id, token, when, failures ('' leaves them as they are). back: what to take off the
-- attempt count.
-- Returns the script's whole answer; `letter` names a job that moved, f one that is fenced, m one that is missing.
local function refile(letter, back)
  local meta, replay_key, jobs = KEYS[1], KEYS[2], KEYS[3]
  local request = ARGV[2]
  rights(meta, 'ZADD', 'HSET', 'ZREM', 'LLEN', 'RPUSH', 'SET', 'HDEL', 'ZMSCORE')
  local stored = read_meta(meta, 'clock', 'beat', 'keeper_at', 'keeper_end')
  local now, stamp = clock(ARGV[1], stored.clock)
  local before = replay(replay_key, request)
  if before then
    local no = refused(before, now)
    if no then
      return no
    end
    local at, answer = string.match(before, '^(%S+) (%S+)$')
    return { 'ok', digits(now), answer, at }
  end
  local numbers, first = named(3)
  local ids, records, letters = holders(jobs, first, 4)
  local fires, texts, buckets = {}, {}, {}
  for i = 1, #ids do
    fires[i], texts[i] = fire_time(ARGV[first + 4 * i - 2], now)
    buckets[i] = bucket_of(numbers, fires[i])
    if not buckets[i] then
      remember(replay_key, request, '!moved ')
      return { 'moved', digits(now) }
    end
  end
  for i = 1, #ids do
    if letters[i] == '' then
      local failures, b = ARGV[first + 4 * i - 1], buckets[i]
      letters[i] = letter
      go_back(ids[i], records[i], back, fires[i], texts[i], failures ~= '' and failures or nil, KEYS[6 + b],
        ARGV[2 + 2 * b])
    end
  end
  local now_ms = math.floor(now / 1000)
  local _, soonest = leave({ jobs = jobs, processing = KEYS[4], days = KEYS[5] }, now_ms)
  if soonest then
    wake(KEYS[6], soonest, now_ms, stored.keeper_at, stored.keeper_end)
  end
  contact(meta, now, stamp, stored.beat)
  local answer = table.concat(letters)
  remember(replay_key, request, digits(now) .. ' ' .. answer)
  return { 'ok', digits(now), answer }
end
