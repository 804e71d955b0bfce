#!lua
-- redrive: dead -> scheduled, by a person. The jobs are due at once, with all their attempts before them.
-- KEYS 1 meta  2 replay  3 jobs  4 dead  5 days  6 dedup  7 wake  8.. buckets
-- ARGV 1 now (tests)  2 request id, then the number of buckets, for each its day and that day's first ms; then
--      the ids
-- Returns ok | moved (the server's today is not among the buckets), clock in µs, and with ok one letter a job:
--      r redriven, n not dead, k its dedup key is held by another job, u unreadable by this version, l left for
--      another call, because the records before it come to 2 MiB
-- Cost O(jobs log n), at most 1000 jobs, or 2 MiB of them, or one.
-- Keeps I9 I10 I11 I13
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include replay
--#include record
--#include slices
--#include buckets
--#include wake
local meta, replay_key, jobs, dead, days, dedup = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local request = ARGV[2]
local stored = read_meta(meta, 'clock', 'keeper_at', 'keeper_end')
local now, stamp = clock(ARGV[1], stored.clock)
local before = replay(replay_key, request)
if before then
  return refused(before, now) or { 'ok', digits(now), before }
end
rights(meta, 'ZADD', 'HSET', 'ZREM', 'LLEN', 'RPUSH', 'SET')
local fire = math.ceil(now / 1000)
local numbers, first = named(3)
local today = bucket_of(numbers, fire)
if not today then
  remember(replay_key, request, '!moved ')
  return { 'moved', digits(now) }
end
local ids = {}
for i = first, #ARGV do
  ids[#ids + 1] = ARGV[i]
end
local asked = #ids
local records = read_within(jobs, ids, BUDGET)
local listed = redis.call('ZMSCORE', dead, unpack(ids))
local digests, digest_of = {}, {}
for i = 1, #ids do
  local record = records[i]
  if listed[i] and record and readable(record) then
    local digest = fields(record)
    if digest then
      digests[#digests + 1] = digest
      digest_of[i] = #digests
    end
  end
end
local holders = {}
if #digests > 0 then
  holders = redis.call('HMGET', dedup, unpack(digests))
end
local fire_text = string.format('%015.0f', fire)
local letters, off, changes, due, owned, seen, taken = {}, {}, {}, {}, {}, {}, {}
for i = 1, #ids do
  local id, record, d = ids[i], records[i], digest_of[i]
  local digest = d and digests[d]
  if not listed[i] or not record or seen[id] then
    letters[i] = 'n'
  elseif not readable(record) then
    letters[i] = 'u'
  elseif not string.find(record, '^.[xs]') then
    -- By damage a job is listed that runs or has ended. A scheduled job was set aside since its place was damaged.
    letters[i] = 'n'
  elseif digest and (taken[digest] or holders[d] and holders[d] ~= id) then
    letters[i] = 'k'
  else
    letters[i] = 'r'
    seen[id] = true
    off[#off + 1] = id
    changes[#changes + 1] = id
    changes[#changes + 1] = '2s0000' .. fire_text .. string.sub(renewed(record), 22)
    due[#due + 1] = fire
    due[#due + 1] = id
    if digest then
      taken[digest] = true
      owned[#owned + 1] = digest
      owned[#owned + 1] = id
    end
  end
end
for i = #ids + 1, asked do
  letters[i] = 'l'
end
if #off > 0 then
  redis.call('ZADD', days, ARGV[2 + 2 * today], ARGV[2 + 2 * today])
  redis.call('ZADD', KEYS[7 + today], unpack(due))
  if #owned > 0 then
    redis.call('HSET', dedup, unpack(owned))
  end
  redis.call('HSET', jobs, unpack(changes))
  redis.call('ZREM', dead, unpack(off))
  wake(KEYS[7], fire, math.floor(now / 1000), stored.keeper_at, stored.keeper_end)
end
redis.call('HSET', meta, 'clock', digits(stamp))
local answer = table.concat(letters)
remember(replay_key, request, answer)
return { 'ok', digits(now), answer }
