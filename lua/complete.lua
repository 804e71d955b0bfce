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
local meta, replay_key, jobs, processing, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
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
local ended, gone, kept, ends, digests, owners = {}, {}, {}, {}, {}, {}
for i = 1, #ids do
  if letters[i] == '' then
    local id, record = ids[i], renewed(records[i])
    letters[i] = 'd'
    ended[#ended + 1] = id
    local keep = nil
    if string.sub(record, 50, 51) ~= '00' then
      local digest
      digest, keep = fields(record)
      if digest then
        digests[#digests + 1] = digest
        owners[#owners + 1] = id
      end
    end
    if keep and keep > 0 then
      kept[#kept + 1] = id
      kept[#kept + 1] = tombstone(record, 'd')
      ends[#ends + 1] = now_ms + keep
      ends[#ends + 1] = id
    else
      gone[#gone + 1] = id
    end
  end
end
if #ended > 0 then
  if #kept > 0 then
    redis.call('ZADD', done, unpack(ends))
    redis.call('HSET', jobs, unpack(kept))
  end
  if #gone > 0 then
    redis.call('HDEL', jobs, unpack(gone))
  end
  redis.call('ZREM', processing, unpack(ended))
  release_dedup(KEYS[6], KEYS[7], digests, owners, now_ms, false)
end
contact(meta, now, stamp, stored.beat)
local answer = table.concat(letters)
remember(replay_key, request, answer)
return { 'ok', digits(now), answer }
