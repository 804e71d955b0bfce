-- refile: put claimed jobs back on the wheel, as retry and release do. ARGV from 3 on names the buckets as `buckets`
-- has it, then each job with id, token, when, failures ('' leaves them as they are). back: what to take off the
-- attempt count.
-- Returns the script's whole answer; `letter` names a job that moved, f one that is fenced, m one that is missing.
local function refile(letter, back)
  local meta, replay_key, jobs, processing, days, wake_list = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
  local request = ARGV[2]
  rights(meta, 'ZADD', 'HSET', 'ZREM', 'LLEN', 'RPUSH', 'SET')
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
  local moved, changes, members, index = {}, {}, {}, {}
  local earliest
  for i = 1, #ids do
    if letters[i] == '' then
      local id, record, failures = ids[i], renewed(records[i]), ARGV[first + 4 * i - 1]
      letters[i] = letter
      moved[#moved + 1] = id
      local attempt = math.max(0, tonumber(string.sub(record, 3, 6)) - back)
      changes[#changes + 1] = id
      changes[#changes + 1] = '2s' .. string.format('%04d', attempt) .. texts[i] .. string.sub(record, 22, 49)
        .. (failures == '' and string.sub(record, 50) or with_failures(record, failures))
      local b = buckets[i]
      if not members[b] then
        members[b] = {}
        index[#index + 1] = tonumber(ARGV[2 + 2 * b])
        index[#index + 1] = ARGV[2 + 2 * b]
      end
      members[b][#members[b] + 1] = fires[i]
      members[b][#members[b] + 1] = id
      if not earliest or fires[i] < earliest then
        earliest = fires[i]
      end
    end
  end
  if #moved > 0 then
    redis.call('ZADD', days, unpack(index))
    for b, bucket in pairs(members) do
      redis.call('ZADD', KEYS[6 + b], unpack(bucket))
    end
    redis.call('HSET', jobs, unpack(changes))
    redis.call('ZREM', processing, unpack(moved))
    wake(wake_list, earliest, math.floor(now / 1000), stored.keeper_at, stored.keeper_end)
  end
  contact(meta, now, stamp, stored.beat)
  local answer = table.concat(letters)
  remember(replay_key, request, digits(now) .. ' ' .. answer)
  return { 'ok', digits(now), answer }
end
