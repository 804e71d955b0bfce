#!lua flags=allow-oom
-- purge: scheduled, done or dead -> gone, by a person. Deletes jobs of one set: its first ones, or the given ids.
-- A second send deletes what is left, which is what the caller wants.
-- KEYS 1 meta  2 jobs  3 days  4 dedup  5 dedup:expiry  6 set (a bucket, dead or done)
-- ARGV 1 now (tests)  2 day of the bucket, '' for another set  3 most jobs to take  4 highest score to take, or '+inf',
--      then, when only these are meant, the ids
-- Returns ok, clock in µs, how many were deleted
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I9 I10 I11
--#include clock
--#include digits
--#include rights
--#include record
--#include dedup
local meta, jobs, days, set = KEYS[1], KEYS[2], KEYS[3], KEYS[6]
local now, stamp = clock(ARGV[1], redis.call('HGET', meta, 'clock'))
rights(meta, 'HDEL', 'ZREM', 'EXISTS', 'HMGET', 'ZMSCORE', 'HSET')
local ids, gone = {}, 0
if #ARGV > 4 then
  local given = {}
  for i = 5, #ARGV do
    given[#given + 1] = ARGV[i]
  end
  local listed = redis.call('ZMSCORE', set, unpack(given))
  for i = 1, #given do
    if listed[i] then
      ids[#ids + 1] = given[i]
    end
  end
else
  ids = redis.call('ZRANGE', set, '-inf', ARGV[4], 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[3]))
end
if #ids > 0 then
  local records = redis.call('HMGET', jobs, unpack(ids))
  local digests, owners = {}, {}
  for i = 1, #ids do
    local digest = records[i] and readable(records[i]) and fields(records[i])
    if digest then
      digests[#digests + 1] = digest
      owners[#owners + 1] = ids[i]
    end
  end
  redis.call('HDEL', jobs, unpack(ids))
  gone = redis.call('ZREM', set, unpack(ids))
  if ARGV[2] ~= '' and redis.call('EXISTS', set) == 0 then
    redis.call('ZREM', days, ARGV[2])
  end
  release_dedup(KEYS[4], KEYS[5], digests, owners, math.floor(now / 1000), true)
end
redis.call('HSET', meta, 'clock', digits(stamp))
return { 'ok', digits(now), gone }
