#!lua flags=allow-oom
-- complete: processing -> done. The jobs ended well; each leaves a tombstone for its `keep` time, or nothing.
-- KEYS 1 meta  2 replay  3 jobs  4 processing  5 done  6 dedup  7 dedup:expiry
-- ARGV 1 now (tests)  2 request id, then for each job: id, token as 16 digits
-- Returns ok, clock in µs, one letter a job: d done, f fenced, m missing
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I4 I5 I9 I11 I13
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
local meta, replay_key, jobs = KEYS[1], KEYS[2], KEYS[3]
local request = ARGV[2]
local stored = read_meta(meta, 'clock', 'beat')
local now, stamp = clock(ARGV[1], stored.clock)
local before = replay(replay_key, request)
if before then
  return { 'ok', digits(now), before }
end
rights(meta, 'ZADD', 'HSET', 'ZMSCORE', 'HDEL', 'ZREM', 'SET')
local now_ms = math.floor(now / 1000)
local ids, records, letters = holders(jobs, 3, 2)
for i = 1, #ids do
  if letters[i] == '' then
    letters[i] = 'd'
    end_well(ids[i], records[i], now_ms)
  end
end
leave({ jobs = jobs, processing = KEYS[4], done = KEYS[5], dedup = KEYS[6], expiry = KEYS[7] }, now_ms)
contact(meta, now, stamp, stored.beat)
local answer = table.concat(letters)
remember(replay_key, request, answer)
return { 'ok', digits(now), answer }
