#!lua
-- advance: nothing -> scheduled. Moves the cursors of schedules that are due, and puts their occurrences on the wheel;
-- each only when its record is still the one that the caller built on, so that two callers never do it twice.
-- KEYS 1 meta  2 jobs  3 bodies  4 days  5 wake  6 schedules  7 schedules:due  8.. buckets
-- ARGV 1 now (tests)  2 number of buckets, then their days; then for each schedule: name, stamp that was read,
--      id of the occurrence before ('' when it does not matter), then what becomes of it, and, when there was an id,
--      what becomes of it while that job is scheduled or processing. What becomes of it: status letter, when to look
--      again in ms or '', the record from its line feed on, number of jobs, then for each job: id, fire time as 15
--      digits, number of its bucket, record from the worker's field on
-- Returns ok | foreign, clock in µs, then
--      foreign: the schema that another version wrote
--      ok: for each schedule a word: s stale, nothing was changed; else a advanced or b busy, and a letter a job: c
--      created, i the id exists
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I1 I2 I9 I10 I14
--#include clock
--#include digits
--#include number
--#include meta
--#include plain
--#include rights
--#include wake
--#include bodies
--#include place
local meta, jobs, bodies, days, schedules, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6], KEYS[7]
local stored = read_meta(meta, 'clock', 'keeper_at', 'keeper_end', 'schema')
local now, stamp = clock(ARGV[1], stored.clock)
if stored.schema and stored.schema ~= '1' then
  return { 'foreign', digits(now), plain(stored.schema) }
end
rights(meta, 'ZADD', 'HSET', 'ZREM', 'LLEN', 'RPUSH')
local days_of, keys = {}, {}
local bucket_count = tonumber(ARGV[2])
for b = 1, bucket_count do
  days_of[b], keys[b] = ARGV[2 + b], KEYS[7 + b]
end

-- One outcome from ARGV: its parts, its jobs, and where the next begins.
local function outcome(at)
  local found = { letter = ARGV[at], due = ARGV[at + 1], tail = ARGV[at + 2], jobs = {} }
  local count = tonumber(ARGV[at + 3])
  at = at + 4
  for j = 1, count do
    found.jobs[j] = at
    at = at + 4
  end
  return found, at
end

local names, stamps, befores, free, busy, ids = {}, {}, {}, {}, {}, {}
local at = 3 + bucket_count
while ARGV[at] do
  local n = #names + 1
  names[n], stamps[n], befores[n] = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  free[n], at = outcome(at + 3)
  if befores[n] ~= '' then
    busy[n], at = outcome(at)
  end
  ids[n] = befores[n]
end
for _, which in ipairs({ free, busy }) do
  for n = 1, #names do
    if which[n] then
      for _, j in ipairs(which[n].jobs) do
        ids[#ids + 1] = ARGV[j]
      end
    end
  end
end
local records = redis.call('HMGET', schedules, unpack(names))
local found = redis.call('HMGET', jobs, unpack(ids))
local here = {}
for i = 1, #ids do
  here[ids[i]] = found[i]
end

local token = string.format('%016.0f', stamp)
local words, added, writes, looks, rests = {}, gather(), {}, {}, {}
local earliest
for n = 1, #names do
  local record = records[n]
  if not record or string.sub(record, 1, 2) ~= '1a' or string.sub(record, 3, 18) ~= stamps[n] then
    words[n] = 's'
  else
    local before = befores[n] ~= '' and here[befores[n]]
    local state = before and string.sub(before, 2, 2)
    local chosen, word = free[n], 'a'
    if state == 's' or state == 'p' then
      chosen, word = busy[n], 'b'
    end
    for _, j in ipairs(chosen.jobs) do
      local letter = place(added, here[ARGV[j]], ARGV[j], ARGV[j + 1], tonumber(ARGV[j + 2]), token, ARGV[j + 3])
      word = word .. letter
      if letter == 'c' and (not earliest or tonumber(ARGV[j + 1]) < earliest) then
        earliest = tonumber(ARGV[j + 1])
      end
    end
    words[n] = word
    writes[#writes + 1] = names[n]
    writes[#writes + 1] = '1' .. chosen.letter .. token .. chosen.tail
    if chosen.due == '' then
      rests[#rests + 1] = names[n]
    else
      looks[#looks + 1] = chosen.due
      looks[#looks + 1] = names[n]
    end
  end
end
if #writes > 0 then
  placed(added, jobs, bodies, days, keys, days_of)
  redis.call('HSET', schedules, unpack(writes))
  if #looks > 0 then
    redis.call('ZADD', due, unpack(looks))
  end
  if #rests > 0 then
    redis.call('ZREM', due, unpack(rests))
  end
  if earliest then
    wake(KEYS[5], earliest, math.floor(now / 1000), stored.keeper_at, stored.keeper_end)
  end
end
redis.call('HSET', meta, 'clock', digits(stamp))
return { 'ok', digits(now), unpack(words) }
