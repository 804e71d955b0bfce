#!lua flags=allow-oom
-- prune: done, cancelled or dead -> gone, past retention. Deletes tombstones whose time is over, dead jobs past their
-- age, and windows of dedup keys that ended. A second send prunes what is left. A job that lives,
-- or ended otherwise, and stands there by damage stays: it is looked at again after a day, or after the age.
-- KEYS 1 meta  2 jobs  3 bodies  4 done  5 dead  6 dedup  7 dedup:expiry
-- ARGV 1 now (tests)  2 most of each kind to take  3 age at which a dead job goes, ms  4 the clock that the caller
--      expects, µs, '' when it does not know
-- Returns ok | doubt (the clock is not what the caller expects, by more than a minute: nothing is taken), clock in µs,
--      and with ok how many of the fullest kind were taken
-- It ends early when the records and bodies of a kind come to 2 MiB: ask again until none was taken.
-- Cost O(jobs log n), at most 1000 of each kind, or 2 MiB of them, or one.
-- Keeps I9 I11
--#include clock
--#include digits
--#include rights
--#include record
--#include keeps
--#include slices
--#include rests
--#include behind
--#include count
--#include drop
--#include trim
local meta, jobs, bodies, done, dead, dedup, expiry = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local limit = tonumber(ARGV[2])
-- When a job among the ended ones that has not ended is looked at again, ms.
local LOOK_AGAIN = 86400000
local now, stamp = clock(ARGV[1], redis.call('HGET', meta, 'clock'))
rights(meta, 'HDEL', 'ZREM', 'HINCRBY', 'HSET', 'ZADD')
if ARGV[4] ~= '' and math.abs(now - tonumber(ARGV[4])) > 60000000 then
  return { 'doubt', digits(now) }
end
local now_ms = math.floor(now / 1000)
local ended = redis.call('ZRANGE', done, '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, limit)
local old = redis.call('ZRANGE', dead, '-inf', now_ms - tonumber(ARGV[3]), 'BYSCORE', 'LIMIT', 0, limit)
local digests = redis.call('ZRANGE', expiry, '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, limit)
-- A key whose window ended stays with its holder while that one lives.
local free = {}
if #digests > 0 then
  local owners = redis.call('HMGET', dedup, unpack(digests))
  local names = {}
  for i = 1, #digests do
    names[i] = owners[i] or ''
  end
  local records, looked = read_within(jobs, names, BUDGET)
  for i = #digests, looked + 1, -1 do
    digests[i] = nil
  end
  for i = 1, #digests do
    if not keeps(records[i], digests[i]) then
      free[#free + 1] = digests[i]
    end
  end
  if #free > 0 then
    redis.call('HDEL', dedup, unpack(free))
  end
  redis.call('ZREM', expiry, unpack(digests))
end
local over, stay = at_rest('dc', ended, (read_within(jobs, ended, BUDGET)))
put_behind(done, stay, now_ms + LOOK_AGAIN)
if #over > 0 then
  redis.call('HDEL', jobs, unpack(over))
  redis.call('ZREM', done, unpack(over))
end
local gone = drop_dead(dead, jobs, bodies, meta, old, now_ms)
redis.call('HSET', meta, 'clock', digits(stamp))
return { 'ok', digits(now), math.max(#over, gone, #digests) }
