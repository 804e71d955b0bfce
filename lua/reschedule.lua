#!lua
-- reschedule: scheduled stays scheduled, at another time. Moves one job that has not started.
-- KEYS 1 meta  2 replay  3 jobs  4 days  5 wake  6 bucket it is in  7.. buckets it may go to
-- ARGV 1 now (tests)  2 request id  3 id  4 day it is in  5 first ms of that day  6 when ('<ms>' as 15 digits or
--      '+<delay ms>'), then the number of buckets it may go to, for each its day and that day's first ms
-- Returns ok | moved (the target day is not among them), clock in µs, and with ok one letter: s rescheduled,
--      r running, e ended, m missing, v in another bucket now, u unreadable by this version; and the fire time in ms
-- Cost O(log n).
-- Keeps I3 I9 I10
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include replay
--#include record
--#include buckets
--#include wake
local meta, replay_key, jobs, days, from = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6]
local request, id = ARGV[2], ARGV[3]
local stored = read_meta(meta, 'clock', 'keeper_at', 'keeper_end')
local now, stamp = clock(ARGV[1], stored.clock)
local before = replay(replay_key, request)
if before then
  local no = refused(before, now)
  if no then
    return no
  end
  return { 'ok', digits(now), string.sub(before, 1, 1), string.sub(before, 3) }
end
rights(meta, 'ZADD', 'HSET', 'ZREM', 'EXISTS', 'LLEN', 'RPUSH', 'SET')
local fire, text = fire_time(ARGV[6], now)
local to = bucket_of(named(7), fire)
if not to then
  remember(replay_key, request, '!moved ')
  return { 'moved', digits(now) }
end
local record = redis.call('HGET', jobs, id)
local state = record and string.sub(record, 2, 2)
local letter = 's'
if not record then
  letter = 'm'
elseif not readable(record) then
  letter = 'u'
elseif state == 'p' then
  letter = 'r'
elseif state ~= 's' then
  letter = 'e'
elseif not in_day(tonumber(string.sub(record, 7, 21)), tonumber(ARGV[5])) then
  letter = 'v'
end
if letter ~= 's' then
  remember(replay_key, request, letter .. ' ')
  return { 'ok', digits(now), letter, '' }
end
redis.call('ZADD', days, ARGV[6 + 2 * to], ARGV[6 + 2 * to])
redis.call('ZADD', KEYS[6 + to], digits(fire), id)
record = renewed(record)
redis.call('HSET', jobs, id, string.sub(record, 1, 6) .. text .. string.sub(record, 22))
if from ~= KEYS[6 + to] then
  redis.call('ZREM', from, id)
end
if redis.call('EXISTS', from) == 0 then
  redis.call('ZREM', days, ARGV[4])
end
wake(KEYS[5], fire, math.floor(now / 1000), stored.keeper_at, stored.keeper_end)
redis.call('HSET', meta, 'clock', digits(stamp))
remember(replay_key, request, 's ' .. digits(fire))
return { 'ok', digits(now), 's', digits(fire) }
