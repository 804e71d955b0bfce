#!lua flags=allow-oom
-- bury: processing -> dead. The jobs will not run again by themselves; each carries the failures that say why.
-- KEYS 1 meta  2 replay  3 jobs  4 processing  5 dead  6 dedup  7 dedup:expiry
-- ARGV 1 now (tests)  2 request id  3 most dead jobs kept, then for each job: id, token as 16 digits, failures as
--      lines of JSON
-- Returns ok, clock in µs, one letter a job: x dead, f fenced, m missing
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I5 I6 I9 I11 I13 I19
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include replay
--#include contact
--#include record
--#include dedup
--#include holders
--#include leave
--#include count
--#include slices
--#include rests
--#include behind
--#include trim
local meta, replay_key, jobs = KEYS[1], KEYS[2], KEYS[3]
local request, most = ARGV[2], tonumber(ARGV[3])
local stored = read_meta(meta, 'clock', 'beat')
local now, stamp = clock(ARGV[1], stored.clock)
local before = replay(replay_key, request)
if before then
  return { 'ok', digits(now), before }
end
rights(meta, 'ZADD', 'HSET', 'ZREM', 'ZMSCORE', 'HDEL', 'ZCARD', 'ZRANGE', 'HINCRBY', 'SET')
local now_ms = math.floor(now / 1000)
local ids, records, letters = holders(jobs, 4, 3)
for i = 1, #ids do
  if letters[i] == '' then
    letters[i] = 'x'
    end_dead(ids[i], records[i], ARGV[3 * i + 3], now_ms)
  end
end
if leave({ jobs = jobs, processing = KEYS[4], dead = KEYS[5], dedup = KEYS[6], expiry = KEYS[7] }, now_ms) then
  trim_dead(KEYS[5], jobs, meta, most, now_ms)
end
contact(meta, now, stamp, stored.beat)
local answer = table.concat(letters)
remember(replay_key, request, answer)
return { 'ok', digits(now), answer }
