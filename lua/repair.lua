#!lua flags=allow-oom
-- repair: anywhere -> where the record says. Looks at jobs, day buckets and dedup keys that may contradict each other,
-- and with `mend`, by a person, puts them right. A second send finds nothing left to mend.
-- KEYS 1 meta  2 jobs  3 days  4 processing  5 dead  6 done  7 dedup  8 dedup:expiry  9 wake  10.. buckets
-- ARGV 1 now (tests)  2 look or mend  3 number of buckets  4 number of digests, then for each bucket: day, first ms of
--      the day; then the digests of dedup keys; then the ids of jobs
-- Returns ok, clock in µs, one letter a job, one a bucket, one a digest, and the schema there was before ('' for none)
--      job: c consistent, g gone (no record, and in no set), o without a record, f in the wrong place, p unreadable and
--      in no set, m its day is not among the buckets
--      bucket: c consistent, e in the index and empty, l not in the index
--      digest: c consistent, s stale
-- Cost O(jobs buckets log n), at most 500 jobs, 20 buckets and 500 digests.
-- Keeps I9 I10 I11 I19
--#include clock
--#include digits
--#include number
--#include plain
--#include rights
--#include record
--#include buckets
--#include keeps
--#include wake
--#include count
local meta, jobs, days, processing, dead, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local dedup, expiry = KEYS[7], KEYS[8]
local mend, bucket_count, digest_count = ARGV[2] == 'mend', tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = redis.call('HMGET', meta, 'clock', 'schema', 'lease', 'keeper_at', 'keeper_end')
local now = clock(ARGV[1], stored[1])
local now_ms = math.floor(now / 1000)
local lease = number(stored[3], 30000)

local names, starts, zsets, ids, keys = {}, {}, {}, {}, {}
for b = 1, bucket_count do
  names[b], starts[b], zsets[b] = ARGV[3 + 2 * b], tonumber(ARGV[4 + 2 * b]), KEYS[9 + b]
end
for i = 5 + 2 * bucket_count, 4 + 2 * bucket_count + digest_count do
  keys[#keys + 1] = ARGV[i]
end
for i = 5 + 2 * bucket_count + digest_count, #ARGV do
  ids[#ids + 1] = ARGV[i]
end
zsets[bucket_count + 1], zsets[bucket_count + 2], zsets[bucket_count + 3] = processing, dead, done

-- where: which of the sets a record belongs to and with which score, nil when its day is not among the buckets.
local function where(record)
  local state = readable(record) and string.sub(record, 2, 2) or 'x'
  if state == 's' then
    local fire = tonumber(string.sub(record, 7, 21))
    for b = 1, bucket_count do
      if in_day(fire, starts[b]) then
        return b, fire
      end
    end
    return nil
  elseif state == 'p' then
    return bucket_count + 1, now_ms + lease
  elseif state == 'd' or state == 'c' then
    local _, keep = fields(record)
    return bucket_count + 3, now_ms + (keep or 0)
  end
  return bucket_count + 2, now_ms
end

local letters, off, on = {}, {}, {}
for z = 1, #zsets do
  off[z], on[z] = {}, {}
end
local earliest
if #ids > 0 then
  local records = redis.call('HMGET', jobs, unpack(ids))
  local scores = {}
  for z = 1, #zsets do
    scores[z] = redis.call('ZMSCORE', zsets[z], unpack(ids))
  end
  for i = 1, #ids do
    local record, found = records[i], 0
    for z = 1, #zsets do
      found = scores[z][i] and found + 1 or found
    end
    local home, score = nil, nil
    if record then
      home, score = where(record)
    end
    local unread = record and not (readable(record) and string.find(record, '^.[spdxc]'))
    if not record then
      letters[i] = found == 0 and 'g' or 'o'
    elseif unread and found > 0 then
      -- Claim and reap set it aside when its time comes; until then it stays where its own version put it.
      letters[i], home = 'c', nil
    elseif unread then
      letters[i] = 'p'
    elseif not home then
      letters[i] = 'm'
    elseif found == 1 and scores[home][i] and (home > bucket_count or tonumber(scores[home][i]) == score) then
      letters[i], home = 'c', nil
    else
      letters[i] = 'f'
    end
    local moves = home and letters[i] ~= 'c'
    if letters[i] == 'o' or moves then
      for z = 1, #zsets do
        if scores[z][i] and z ~= home then
          off[z][#off[z] + 1] = ids[i]
        end
      end
    end
    if moves and (not scores[home][i] or home <= bucket_count) then
      on[home][#on[home] + 1] = score
      on[home][#on[home] + 1] = ids[i]
      if home <= bucket_count and (not earliest or score < earliest) then
        earliest = score
      end
    end
  end
end

local stale, held_letters = {}, {}
if #keys > 0 then
  local owners = redis.call('HMGET', dedup, unpack(keys))
  local ends = redis.call('ZMSCORE', expiry, unpack(keys))
  local owned = {}
  for i = 1, #keys do
    owned[i] = owners[i] or ''
  end
  local records = redis.call('HMGET', jobs, unpack(owned))
  for i = 1, #keys do
    local holds = owners[i] and keeps(records[i], keys[i])
    local lasts = owners[i] and ends[i] and tonumber(ends[i]) > now_ms
    local known = owners[i] or ends[i]
    held_letters[i] = (holds or lasts or not known) and 'c' or 's'
    if held_letters[i] == 's' then
      stale[#stale + 1] = keys[i]
    end
  end
end

local mended = 0
if mend then
  rights(meta, 'ZADD', 'ZREM', 'HDEL', 'HSET', 'HINCRBY', 'EXISTS', 'ZMSCORE', 'LLEN', 'RPUSH')
  for z = 1, #zsets do
    if #on[z] > 0 then
      redis.call('ZADD', zsets[z], unpack(on[z]))
    end
  end
  for z = 1, #zsets do
    if #off[z] > 0 then
      redis.call('ZREM', zsets[z], unpack(off[z]))
    end
  end
  for i = 1, #ids do
    if letters[i] == 'o' or letters[i] == 'f' or letters[i] == 'p' then
      mended = mended + 1
    end
  end
  if #stale > 0 then
    redis.call('HDEL', dedup, unpack(stale))
    redis.call('ZREM', expiry, unpack(stale))
    mended = mended + #stale
  end
end

local shelf = {}
if bucket_count > 0 then
  local listed = redis.call('ZMSCORE', days, unpack(names))
  for b = 1, bucket_count do
    local there = redis.call('EXISTS', zsets[b]) == 1
    if there and not listed[b] then
      shelf[b] = 'l'
      if mend then
        redis.call('ZADD', days, names[b], names[b])
      end
    elseif listed[b] and not there then
      shelf[b] = 'e'
      if mend then
        redis.call('ZREM', days, names[b])
      end
    else
      shelf[b] = 'c'
    end
  end
end

if mend then
  if earliest then
    wake(KEYS[9], earliest, now_ms, stored[4], stored[5])
  end
  if not stored[2] then
    redis.call('HSET', meta, 'schema', '1', 'epoch', digits(now))
  end
  if mended > 0 then
    count(meta, 'orphans', mended)
  end
  redis.call('HSET', meta, 'clock', digits(now))
end
return { 'ok', digits(now), table.concat(letters), table.concat(shelf), table.concat(held_letters),
  plain(stored[2] or '') }
