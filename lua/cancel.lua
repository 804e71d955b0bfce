#!lua
-- cancel: scheduled -> cancelled. Takes jobs of one bucket off the wheel before they start; each leaves a tombstone.
-- What runs stays in processing: its record says from now on that it is asked to cancel it, and so does `asked`, which
-- its worker reads. When it leaves processing in any way but well, it is cancelled.
-- KEYS 1 meta  2 replay  3 jobs  4 bodies  5 days  6 done  7 dedup  8 dedup:expiry  9 bucket  10 asked
-- ARGV 1 now (tests)  2 request id  3 day of the bucket  4 first ms of that day  5 least time a tombstone stays, ms,
--      then the ids
-- Returns ok, clock in µs, one letter a job: c cancelled, q asked for, since it runs, a cancelled already, e done or
--      dead, m missing, v in another bucket now, u unreadable by this version
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I9 I10 I11 I12 I13 I20
--#include clock
--#include digits
--#include rights
--#include replay
--#include record
--#include buckets
--#include dedup
--#include drop
local meta, replay_key, jobs, bodies, days, done, bucket = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[9]
-- A worker that did not hear of a request for so long hears of it only by its outcome, ms.
local HEARD = 86400000
local request, day, start, least = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local now, stamp = clock(ARGV[1], redis.call('HGET', meta, 'clock'))
local before = replay(replay_key, request)
if before then
  return { 'ok', digits(now), before }
end
rights(meta, 'ZADD', 'HSET', 'ZREM', 'EXISTS', 'ZMSCORE', 'HDEL', 'SET', 'ZRANGE', 'PEXPIRE')
local now_ms = math.floor(now / 1000)
local ids = {}
for i = 6, #ARGV do
  ids[#ids + 1] = ARGV[i]
end
local records = redis.call('HMGET', jobs, unpack(ids))
local letters, off, changes, ends, large, digests, owners, asks = {}, {}, {}, {}, {}, {}, {}, {}
for i = 1, #ids do
  local id, record = ids[i], records[i]
  local state = record and string.sub(record, 2, 2)
  if not record then
    letters[i] = 'm'
  elseif not readable(record) then
    letters[i] = 'u'
  elseif state == 'p' then
    letters[i] = 'q'
    if not asked(record) then
      changes[#changes + 1] = id
      changes[#changes + 1] = with_asked(renewed(record), now_ms)
    end
    asks[#asks + 1] = now_ms
    asks[#asks + 1] = id .. ' ' .. string.sub(record, 22, 37)
  elseif state == 'c' then
    letters[i] = 'a'
  elseif state ~= 's' then
    letters[i] = 'e'
  elseif not in_day(tonumber(string.sub(record, 7, 21)), start) then
    letters[i] = 'v'
  else
    letters[i] = 'c'
    record = renewed(record)
    local digest, keep = fields(record)
    off[#off + 1] = id
    large[#large + 1] = apart(record) and id
    changes[#changes + 1] = id
    changes[#changes + 1] = tombstone(record, 'c')
    ends[#ends + 1] = now_ms + math.max(keep or 0, least)
    ends[#ends + 1] = id
    if digest then
      digests[#digests + 1] = digest
      owners[#owners + 1] = id
    end
  end
end
-- It is read before anything is written: a key that another program uses must not stop a script half way.
local old = #asks > 0 and redis.call('ZRANGE', KEYS[10], '-inf', now_ms - HEARD, 'BYSCORE', 'LIMIT', 0, 100) or {}
if #off > 0 then
  redis.call('ZADD', done, unpack(ends))
end
if #changes > 0 then
  redis.call('HSET', jobs, unpack(changes))
end
if #off > 0 then
  redis.call('ZREM', bucket, unpack(off))
  if redis.call('EXISTS', bucket) == 0 then
    redis.call('ZREM', days, day)
  end
  drop_bodies(bodies, large)
  release_dedup(KEYS[7], KEYS[8], digests, owners, now_ms, true)
end
if #old > 0 then
  -- First: one of them may be asked for once more.
  redis.call('ZREM', KEYS[10], unpack(old))
end
if #asks > 0 then
  redis.call('ZADD', KEYS[10], unpack(asks))
  redis.call('PEXPIRE', KEYS[10], HEARD)
end
redis.call('HSET', meta, 'clock', digits(stamp))
local answer = table.concat(letters)
remember(replay_key, request, answer)
return { 'ok', digits(now), answer }
