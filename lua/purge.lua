#!lua flags=allow-oom
-- purge: scheduled, done or dead -> gone, by a person. Deletes jobs of one set: its first ones, or the given ids. A job
-- that is not of this set, and stands there by damage, is left alone. A second send deletes what is left, which is what
-- the caller wants.
-- KEYS 1 meta  2 jobs  3 bodies  4 days  5 dedup  6 dedup:expiry  7 set (a bucket, dead or done)
-- ARGV 1 now (tests)  2 day of the bucket, '' for another set  3 most jobs to take  4 highest score to take, or '+inf'
--      5 states of the records that belong in the set  6 how many of the first ones to pass over: those that were left
--      alone; then, when only these are meant, the ids
-- Returns ok, clock in µs, how many were deleted, and how many were left alone
-- It ends early when the records and bodies come to 2 MiB: ask again, for the ids too, until none was deleted or left
-- alone.
-- Cost O(jobs log n), at most 1000 jobs, or 2 MiB of them, or one.
-- Keeps I9 I10 I11
--#include clock
--#include digits
--#include rights
--#include record
--#include dedup
--#include slices
--#include rests
--#include drop
local meta, jobs, bodies, days, set = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7]
local now, stamp = clock(ARGV[1], redis.call('HGET', meta, 'clock'))
rights(meta, 'HDEL', 'ZREM', 'EXISTS', 'HMGET', 'ZMSCORE', 'HSET')
local ids, past = {}, tonumber(ARGV[6])
if #ARGV > 6 then
  local given = {}
  for i = 7, #ARGV do
    given[#given + 1] = ARGV[i]
  end
  local listed = redis.call('ZMSCORE', set, unpack(given))
  for i = 1, #given do
    if listed[i] then
      past = past - 1
      ids[#ids + 1] = past < 0 and given[i] or nil
    end
  end
else
  ids = redis.call('ZRANGE', set, '-inf', ARGV[4], 'BYSCORE', 'LIMIT', past, tonumber(ARGV[3]))
end
local records = read_within(jobs, ids, BUDGET, apart)
local rest, stay, digests, owners = at_rest(ARGV[5], ids, records)
local gone = 0
if #rest > 0 then
  redis.call('HDEL', jobs, unpack(rest))
  gone = redis.call('ZREM', set, unpack(rest))
  if ARGV[2] ~= '' and redis.call('EXISTS', set) == 0 then
    redis.call('ZREM', days, ARGV[2])
  end
  drop_bodies(bodies, rest)
  release_dedup(KEYS[5], KEYS[6], digests, owners, math.floor(now / 1000), true)
end
redis.call('HSET', meta, 'clock', digits(stamp))
return { 'ok', digits(now), gone, #stay }
