#!lua flags=allow-oom
-- settle: processing -> done, dead, scheduled or cancelled. What became of the jobs that a worker held, of any kinds in
-- one batch: done, dead, on the wheel to be tried again, back on the wheel unharmed, the attempt not counted, or
-- cancelled. One that it was asked to cancel, and that is not done, is cancelled.
-- KEYS 1 meta  2 replay  3 jobs  4 bodies  5 processing  6 done  7 dedup  8 dedup:expiry, and where not all jobs ended
--      well  9 dead  10 days  11 wake  12.. buckets
-- ARGV 1 now (tests)  2 request id, then for each job that ended well: id, token as 16 digits; and where not all did:
--      '', most dead jobs kept, the number of buckets, for each its day and that day's first ms, then for each other
--      job: id, letter (x dead, r retried, b back, c cancelled) and token, when ('<ms>' as 15 digits or '+<delay ms>',
--      '' for x and c), failures as lines of JSON ('' leaves those of a job that lives as they are)
-- Returns ok | moved, clock in µs, and with ok one letter a job: d done, x dead, r retried, b back on the wheel, c
--      cancelled, f fenced, m missing; a repeat adds the clock of the first answer, from which its delays counted
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I4 I5 I6 I8 I9 I10 I11 I12 I13 I19
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include replay
--#include contact
--#include holders
--#include dedup
--#include drop
--#include leave
local meta, replay_key, jobs, request = KEYS[1], KEYS[2], KEYS[3], ARGV[2]
local stored = read_meta(meta, 'clock', 'beat', 'keeper_at', 'keeper_end')
local now, stamp = clock(ARGV[1], stored.clock)
local before = replay(replay_key, request)
if before then
  local at, letters = string.match(before, '^(%d+) (%S+)$')
  return at and { 'ok', digits(now), letters, at } or refused(before, now)
end
rights(meta, 'HSET', 'HDEL', 'ZREM', 'SET')
local now_ms = math.floor(now / 1000)
local ids, others = {}, nil
for i = 3, #ARGV, 2 do
  if ARGV[i] == '' then
    others = i + 1
    break
  end
  ids[#ids + 1] = ARGV[i]
end
local well = #ids
local first = others and others + 2 + 2 * tonumber(ARGV[others + 1]) or #ARGV + 1
for i = first, #ARGV, 4 do
  ids[#ids + 1] = ARGV[i]
end
-- Most jobs end well and have no fields, and most batches have no others: what follows this loop is made only for them.
local records, letters, gone, fielded = redis.call('HMGET', jobs, unpack(ids)), {}, {}, {}
for i = 1, well do
  local record = records[i]
  local letter = verdict(record, ARGV[2 * i + 2])
  letters[i] = letter or 'd'
  if not letter and string.sub(record, 50, 51) == '00' then
    gone[#gone + 1] = ids[i]
  elseif not letter then
    fielded[#fielded + 1] = i
  end
end
local keys = {
  jobs = jobs, bodies = KEYS[4], processing = KEYS[5], done = KEYS[6], dedup = KEYS[7], expiry = KEYS[8],
}
local out = { gone = gone }
if others or #fielded > 0 then
--#include record
--#include note
--#include moves
  rights(meta, 'ZADD', 'ZMSCORE')
  for _, i in ipairs(fielded) do
    end_well(out, ids[i], records[i], now_ms)
  end
  if others then
--#include buckets
--#include count
--#include slices
--#include rests
--#include behind
--#include trim
--#include wake
    rights(meta, 'ZCARD', 'ZRANGE', 'HINCRBY', 'LLEN', 'RPUSH')
    local numbers = named(others + 1)
    for i = well + 1, #ids do
      local at = first + 4 * (i - well - 1)
      local letter, token, failures = string.sub(ARGV[at + 1], 1, 1), string.sub(ARGV[at + 1], 2), ARGV[at + 3]
      local fire, text, bucket
      if letter ~= 'x' and letter ~= 'c' then
        fire, text = fire_time(ARGV[at + 2], now)
        bucket = bucket_of(numbers, fire)
        if not bucket then
          remember(replay_key, request, '!moved ')
          return { 'moved', digits(now) }
        end
      end
      local refusal = verdict(records[i], token)
      if not refusal and asked(records[i]) then
        letter = 'c'
      end
      letters[i] = refusal or letter
      if not refusal and letter == 'x' then
        end_dead(out, ids[i], records[i], failures, now_ms)
      elseif not refusal and letter == 'c' then
        end_cancelled(out, ids[i], records[i], now_ms)
      elseif not refusal then
        go_back(out, ids[i], records[i], letter == 'b' and 1 or 0, fire, text, failures ~= '' and failures or nil,
          KEYS[11 + bucket], ARGV[others + 2 * bucket])
      end
    end
    keys.dead, keys.days = KEYS[9], KEYS[10]
    leave(out, keys, now_ms)
    if out.dead then
      trim_dead(KEYS[9], jobs, KEYS[4], meta, tonumber(ARGV[others]), now_ms)
    end
    if out.soonest then
      wake(KEYS[11], out.soonest, now_ms, stored.keeper_at, stored.keeper_end)
    end
  end
end
if not others then
  leave(out, keys, now_ms)
end
contact(meta, now, stamp, stored.beat)
local at, answer = digits(now), table.concat(letters)
remember(replay_key, request, at .. ' ' .. answer)
return { 'ok', at, answer }
