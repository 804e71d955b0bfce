#!lua
-- enqueue: nothing, cancelled, done, dead -> scheduled. Puts new jobs on the wheel, all of the batch or none of it. A
-- cancelled job gives way to a new one of its id, a done or dead one when the caller asks for that, a living one never.
-- KEYS 1 meta  2 replay  3 jobs  4 bodies  5 days  6 dedup  7 dedup:expiry  8 wake  9 dead  10 done  11.. buckets, and
--      last, for a chunk of a bulk, the replay of its content
-- ARGV 1 now (tests)  2 request id  3 of a queue that is being cut anew, how many shards it had, when the caller has
--      looked for these jobs there; else ''; then the number of buckets, for each its day and that day's first ms; then
--      for each job: id, when ('<ms>' as 15 digits or '+<delay ms>'), dedup ('' or 32 digest characters and
--      the window in ms, nothing for until-done; before them '!' when any ended job of that id gives way, '=' when
--      none does), record from the worker's field on, with its body
-- Returns ok | moved | full | oversized | foreign | shards | moving, clock in µs, and with ok one letter a job (c
--      created, r created in the place of an ended one, a created by another call with the same chunk, i the id exists,
--      k the dedup key is held) and for each that existed 'index id state fire-time'; a repeat adds the clock of the
--      first answer, from which its delays counted; with foreign the schema that another version wrote; with shards how
--      many the queue has: this one takes no jobs; with moving how many it had: jobs of those are on their way here,
--      look for these jobs there first; after a '!' some of those still take jobs, and this one does not
-- An empty queue is founded here: its schema, and its epoch, the µs of that moment. A queue with jobs and without a
-- schema was damaged: it takes jobs, but stays without a schema until `repair`.
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I1 I2 I6 I9 I10 I11 I13
--#include clock
--#include digits
--#include number
--#include meta
--#include plain
--#include rights
--#include replay
--#include record
--#include buckets
--#include keeps
--#include bodies
--#include drop
--#include wake
local meta, replay_key, jobs, bodies, days = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local dedup, expiry = KEYS[6], KEYS[7]
local request = ARGV[2]
-- The largest body that a client may be set to send, with the longest header before it: 197 bytes.
local RECORD_LIMIT = 2097152 + 197
-- How long the same chunk of another call gets the answer of the first, seconds.
local CHUNK_S = 3600
local COUNT_AT, DAY_AT, JOB_AT, BUCKET_AT = 4, 5, 7, 11

local stored = read_meta(meta, 'clock', 'cap', 'keeper_at', 'keeper_end', 'schema', 'paused', 'shards',
  'moving')
local now, stamp = clock(ARGV[1], stored.clock)
local before = replay(replay_key, request)
-- The same chunk of another call, which may have been stored by a process that died: its jobs are there, or have ended.
local chunk = KEYS[BUCKET_AT + tonumber(ARGV[COUNT_AT])]
local same = not before and chunk and redis.call('GET', chunk)
if same == '' then
  same = nil -- That call has ended well: this is a new round of the same jobs.
end
if before or same then
  local no = before and refused(before, now)
  if no then
    return no
  end
  local at, letters, existed = string.match(before or same, '^(%S+) (%S*) ?(.*)$')
  if same then
    letters = string.gsub(letters, '[cr]', 'a')
    remember(replay_key, request, at .. ' ' .. letters .. ' ' .. existed)
  end
  return { 'ok', digits(now), letters, existed, at }
end
rights(meta, 'ZADD', 'HSET', 'LLEN', 'RPUSH', 'SET')
local now_ms = math.floor(now / 1000)
if stored.schema and stored.schema ~= '1' then
  remember(replay_key, request, '!foreign ' .. plain(stored.schema))
  return { 'foreign', digits(now), plain(stored.schema) }
end
if stored.shards then
  remember(replay_key, request, '!shards ' .. plain(stored.shards))
  return { 'shards', digits(now), plain(stored.shards) }
end
if stored.moving and stored.moving ~= ARGV[3] and string.find(stored.moving, '^!?%d+$') then
  remember(replay_key, request, '!moving ' .. stored.moving)
  return { 'moving', digits(now), stored.moving }
end
local cap = stored.cap and number(stored.cap, nil)
if cap and cap < 1 then
  cap = nil -- None that a person could set: it would refuse every job.
end
local founds = not stored.schema and redis.call('EXISTS', jobs) == 0

-- One job without a dedup key and one bucket, the most frequent call: the steps below without their tables. When its id
-- is taken, the steps below decide.
if #ARGV == JOB_AT + 3 and ARGV[JOB_AT + 2] == '' and not founds and not cap and not chunk
  and #ARGV[JOB_AT + 3] <= RECORD_LIMIT then
  local id, day = ARGV[JOB_AT], ARGV[DAY_AT]
  local fire, text = fire_time(ARGV[JOB_AT + 1], now)
  if not in_day(fire, tonumber(ARGV[DAY_AT + 1])) then
    remember(replay_key, request, '!moved ')
    return { 'moved', digits(now) }
  end
  local rest, body = ARGV[JOB_AT + 3], nil
  if #rest > LARGE then
    rest, body = split(rest)
  end
  local record = '2s0000' .. text .. string.format('%016.0f', stamp) .. rest
  if not redis.call('HMGET', jobs, id)[1] then
    local at = digits(now)
    if body then
      redis.call('HSET', bodies, id, body)
    end
    redis.call('ZADD', days, day, day)
    redis.call('ZADD', KEYS[BUCKET_AT], fire, id)
    redis.call('HSET', jobs, id, record)
    -- Of a paused queue nobody can take a job: `resume` calls a listener.
    if not stored.paused then
      wake(KEYS[8], fire, now_ms, stored.keeper_at, stored.keeper_end)
    end
    redis.call('HSET', meta, 'clock', stamp == now and at or digits(stamp))
    remember(replay_key, request, at .. ' c ')
    return { 'ok', at, 'c', '' }
  end
end

-- The states of a job that gives way to a new one of its id, by the mark before the dedup key; without one 'c'.
local GIVE_WAY = { ['!'] = 'cdx', ['='] = '' }
local ids, fires, texts, buckets, keys, rests, ways = {}, {}, {}, {}, {}, {}, {}
local earliest
local numbers, first = named(4)
for position = first, #ARGV, 4 do
  local n = #ids + 1
  local fire, text = fire_time(ARGV[position + 1], now)
  local b = bucket_of(numbers, fire)
  if not b then
    remember(replay_key, request, '!moved ')
    return { 'moved', digits(now) }
  end
  if #ARGV[position + 3] > RECORD_LIMIT then
    remember(replay_key, request, '!oversized ' .. ARGV[position])
    return { 'oversized', digits(now), ARGV[position] }
  end
  ids[n], fires[n], texts[n], buckets[n] = ARGV[position], fire, text, b
  local key = ARGV[position + 2]
  if key ~= '' then
    ways[n] = GIVE_WAY[string.sub(key, 1, 1)]
    key = ways[n] and string.sub(key, 2) or key
  end
  keys[n], rests[n] = key, ARGV[position + 3]
end

local here = redis.call('HMGET', jobs, unpack(ids))
local digests, digest_of = {}, {}
for i = 1, #ids do
  if keys[i] ~= '' then
    digests[#digests + 1] = string.sub(keys[i], 1, 32)
    digest_of[i] = #digests
  end
end
local holders, ends = {}, {}
if #digests > 0 then
  rights(dedup, 'ZREM')
  holders = redis.call('HMGET', dedup, unpack(digests))
  ends = redis.call('ZMSCORE', expiry, unpack(digests))
  local held = {}
  for i = 1, #digests do
    held[i] = holders[i] or ''
  end
  local records = redis.call('HMGET', jobs, unpack(held))
  for i = 1, #digests do
    -- A holder that ended, or whose record is gone or another's, counts only while its window lasts.
    if holders[i] and not keeps(records[i], digests[i]) and not (ends[i] and tonumber(ends[i]) > now_ms) then
      holders[i] = false
    elseif holders[i] then
      ends[i] = records[i] or ''
    end
  end
end

local token = string.format('%016.0f', stamp)
local letters, existed, pairs_of = {}, {}, {}
local members, seen, taken, windows, owned, fresh, old = {}, {}, {}, {}, {}, {}, {}
local large, bare = {}, {}
for i = 1, #ids do
  local id = ids[i]
  local d = digest_of[i]
  local digest = d and digests[d]
  local record = seen[id] or here[i]
  -- A damaged record counts for a living job. What this batch has put there lives.
  local over = record and readable(record) and string.find(ways[i] or 'c', string.sub(record, 2, 2), 1, true)
  local holder = digest and (holders[d] or taken[digest])
  if record and not over then
    letters[i] = 'i'
    existed[#existed + 1] = i .. ' ' .. id .. ' ' .. string.sub(record, 2, 2) .. ' ' .. string.sub(record, 7, 21)
  elseif holder and not (over and holder == id) then
    local held = seen[holder] or (holders[d] and ends[d]) or ''
    letters[i] = 'k'
    existed[#existed + 1] = i .. ' ' .. holder .. ' '
      .. (held == '' and 'd' or string.sub(held, 2, 2)) .. ' '
      .. (held == '' and '000000000000000' or string.sub(held, 7, 21))
  else
    letters[i] = over and 'r' or 'c'
    local own = token
    if over then
      old[#old + 1] = id
      local last = string.sub(record, 22, 37)
      if last >= own then
        own = string.format('%016.0f', tonumber(last) + 1)
      end
    end
    local rest, body = rests[i], nil
    if #rest > LARGE then
      rest, body = split(rest)
    end
    record = '2s0000' .. texts[i] .. own .. rest
    seen[id] = record
    if body then
      large[#large + 1] = id
      large[#large + 1] = body
    elseif over then
      bare[#bare + 1] = id
    end
    pairs_of[#pairs_of + 1] = id
    pairs_of[#pairs_of + 1] = record
    local bucket = members[buckets[i]]
    if not bucket then
      bucket = {}
      members[buckets[i]] = bucket
    end
    bucket[#bucket + 1] = fires[i]
    bucket[#bucket + 1] = id
    if not earliest or fires[i] < earliest then
      earliest = fires[i]
    end
    if digest then
      taken[digest] = id
      fresh[#fresh + 1] = digest
      owned[#owned + 1] = digest
      owned[#owned + 1] = id
      local window = string.sub(keys[i], 33)
      if window ~= '' then
        windows[#windows + 1] = now_ms + tonumber(window)
        windows[#windows + 1] = digest
      end
    end
  end
end

local created = #pairs_of / 2
if cap and created > 0 then
  local living = redis.call('HLEN', jobs) - redis.call('ZCARD', KEYS[9]) - redis.call('ZCARD', KEYS[10])
  if living + created > cap then
    remember(replay_key, request, '!full ' .. digits(cap))
    return { 'full', digits(now), digits(cap) }
  end
end
if #old > 0 then
  rights(meta, 'ZREM', 'HDEL')
end
if created > 0 then
  if #large > 0 then
    redis.call('HSET', bodies, unpack(large))
  end
  local index = {}
  for b in pairs(members) do
    index[#index + 1] = tonumber(ARGV[3 + 2 * b])
    index[#index + 1] = ARGV[3 + 2 * b]
  end
  redis.call('ZADD', days, unpack(index))
  for b, bucket in pairs(members) do
    redis.call('ZADD', KEYS[BUCKET_AT - 1 + b], unpack(bucket))
  end
  if #owned > 0 then
    redis.call('ZREM', expiry, unpack(fresh))
    redis.call('HSET', dedup, unpack(owned))
    if #windows > 0 then
      redis.call('ZADD', expiry, unpack(windows))
    end
  end
  redis.call('HSET', jobs, unpack(pairs_of))
  if #old > 0 then
    redis.call('ZREM', KEYS[9], unpack(old))
    redis.call('ZREM', KEYS[10], unpack(old))
    drop_bodies(bodies, bare)
  end
  if not stored.paused then
    wake(KEYS[8], earliest, now_ms, stored.keeper_at, stored.keeper_end)
  end
end
if founds then
  redis.call('HSET', meta, 'clock', digits(stamp), 'schema', '1', 'epoch', digits(stamp))
else
  redis.call('HSET', meta, 'clock', digits(stamp))
end
local letter_text, existed_text = table.concat(letters), table.concat(existed, ' ')
local answer = digits(now) .. ' ' .. letter_text .. ' ' .. existed_text
remember(replay_key, request, answer)
if chunk then
  redis.call('SET', chunk, answer, 'EX', CHUNK_S)
end
return { 'ok', digits(now), letter_text, existed_text }
