#!lua flags=allow-oom
-- offer: processing -> scheduled or cancelled. This worker does not know the task: the job goes back unharmed, its
-- attempt not counted, for a later time, and is offered meanwhile to groups of workers that know it; of each, one is
-- called. One that it was asked to cancel is cancelled.
-- KEYS 1 meta  2 replay  3 jobs  4 processing  5 days  6 wake  7 bodies  8 done  9 dedup  10 dedup:expiry  11 bucket,
--      then for each group: offered  call
-- ARGV 1 now (tests)  2 request id  3 day of the bucket: the server's today  4 first ms of that day  5 how long the
--      offer stands, ms, then for each job: id, token as 16 digits, failures as lines of JSON ('' leaves them as they
--      are, 'none' takes them away)
-- Returns ok | moved, clock in µs, and with ok one letter a job: o offered, c cancelled, f fenced, m missing; and when
--      the offer ends, ms: from then on the job is due for everyone
-- Cost O(jobs groups log n), at most 1000 jobs and 8 groups.
-- Keeps I4 I5 I8 I9 I10 I11 I12 I25
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include replay
--#include contact
--#include record
--#include buckets
--#include wake
--#include dedup
--#include holders
--#include drop
--#include leave
--#include note
--#include moves
local meta, replay_key, jobs = KEYS[1], KEYS[2], KEYS[3]
-- How soon a job that nobody could be told of goes round again, ms.
local UNTOLD = 1000
local request, day, start, stands = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local stored = read_meta(meta, 'clock', 'beat', 'keeper_at', 'keeper_end')
local now, stamp = clock(ARGV[1], stored.clock)
local before = replay(replay_key, request)
if before then
  local no = refused(before, now)
  if no then
    return no
  end
  local letters, ends = string.match(before, '^(%a*) (%d+)$')
  return { 'ok', digits(now), letters, ends }
end
rights(meta, 'ZADD', 'HSET', 'ZREM', 'ZRANGE', 'LLEN', 'RPUSH', 'SET', 'HDEL', 'ZMSCORE')
local now_ms = math.floor(now / 1000)
if not in_day(now_ms, start) then
  remember(replay_key, request, '!moved ')
  return { 'moved', digits(now) }
end
-- An offer that nobody of a group took in time is void. A group cannot be told when its key holds another's data.
local void, told = {}, false
for k = 12, #KEYS, 2 do
  void[k] = redis.pcall('ZRANGE', KEYS[k], '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, 1000)
  told = told or not void[k].err
end
-- The offer ends with the day, so that a claim finds the job in today's bucket.
local ends = math.min(math.ceil(now / 1000) + (told and stands or math.min(stands, UNTOLD)), start + DAY - 1)
local ids, tokens = claims(6, 3)
local records, letters = redis.call('HMGET', jobs, unpack(ids)), {}
local fire_text = string.format('%015.0f', ends)
local hints, out = {}, { gone = {} }
for i = 1, #ids do
  letters[i] = verdict(records[i], tokens[i]) or 'o'
  if letters[i] == 'o' and asked(records[i]) then
    letters[i] = 'c'
    end_cancelled(out, ids[i], records[i], now_ms)
  elseif letters[i] == 'o' then
    local id, record, failures = ids[i], records[i], ARGV[3 * i + 5]
    if failures == '' then
      failures = nil
    elseif failures == 'none' then
      failures = ''
    end
    go_back(out, id, record, 1, ends, fire_text, failures, KEYS[11], day)
    hints[#hints + 1] = ends
    hints[#hints + 1] = id .. ' ' .. string.sub(record, 7, 21) .. ' ' .. string.sub(record, 22, 37)
  end
end
leave(out, {
  jobs = jobs, processing = KEYS[4], days = KEYS[5], bodies = KEYS[7], done = KEYS[8], dedup = KEYS[9],
  expiry = KEYS[10],
}, now_ms)
if #hints > 0 then
  for k = 12, #KEYS, 2 do
    if not void[k].err then
      redis.call('ZADD', KEYS[k], unpack(hints))
      if #void[k] > 0 then
        redis.call('ZREM', KEYS[k], unpack(void[k]))
      end
      push_token(KEYS[k + 1])
    end
  end
  wake(KEYS[6], ends, now_ms, stored.keeper_at, stored.keeper_end)
end
contact(meta, now, stamp, stored.beat)
local answer = table.concat(letters)
remember(replay_key, request, answer .. ' ' .. digits(ends))
return { 'ok', digits(now), answer, digits(ends) }
