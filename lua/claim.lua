#!lua flags=allow-oom
-- claim: scheduled -> processing. Takes due jobs of the earliest bucket, oldest first, under a lease, each with a
-- token larger than any before; when nothing more is due, says until when to sleep and in which role.
-- KEYS 1 meta  2 replay  3 jobs  4 bodies  5 days  6 processing  7 dead  8 wake  9 bucket  10 offered
-- ARGV 1 now (tests)  2 request id  3 worker, 8 characters  4 lease, ms  5 most jobs to take  6 day of the bucket
--      7 how long a role lasts without a further claim, ms, 0: the worker wants none  8 the epoch that the worker
--      serves, '' when it does not know  9 how far ahead of their time the worker can hold jobs, ms
-- Returns ok | moved | empty | paused | foreign | flushed, clock in µs, then
--      foreign: the schema that another version wrote
--      flushed: the epoch there is now or '': somebody emptied the queue or deleted its meta, or cut it into another
--      number of shards
--      moved: the earliest day
--      ok, empty: next fire time in ms or '' (of another day: its first ms unknown, so '' with that day), day of the
--      earliest bucket or '', role (timekeeper | second | follower | none), end of the grace period or 0, how
--      often the server's clock was seen to jump ('' in the answer to a repeat), how far ahead it took jobs, ms
--      ok: then id, record with its body, id, record with its body, ...
-- Jobs of a precise queue are taken up to ARGV 9 ahead of their time: the worker holds them until then.
-- A claim ends early when the records and bodies of its jobs come to 2 MiB; what is left stays due.
-- Cost O(jobs log n), at most 1000 jobs, or 2 MiB of them, and one job more.
-- Keeps I3 I4 I6 I9 I10 I19 I25
--#include clock
--#include digits
--#include number
--#include meta
--#include plain
--#include rights
--#include replay
--#include contact
--#include wake
--#include roles
--#include record
--#include index
--#include slices
--#include join
--#include count
--#include astray
--#include taken
--#include offered
local meta, replay_key, jobs, bodies, days, processing = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local dead, wake_list, bucket = KEYS[7], KEYS[8], KEYS[9]
local request, worker, lease, limit = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local day, role_ms = ARGV[6], tonumber(ARGV[7])
-- No job is taken further ahead of its time, ms.
local FARTHEST = 10
-- What a timekeeper of an empty wheel sleeps for, ms.
local NEVER = 9007199254740992

local stored = read_meta(meta, 'clock', 'beat', 'grace', 'lease', 'paused', 'precise', 'keeper', 'keeper_at',
  'keeper_end', 'second', 'second_end', 'schema', 'epoch', 'leased', 'jumps', 'shards')
local now, stamp = clock(ARGV[1], stored.clock)
local now_ms = math.floor(now / 1000)
local ahead = stored.precise and math.min(number(ARGV[9], 0), FARTHEST) or 0
local due_ms = now_ms + ahead

local before = replay(replay_key, request)
if before then
  local token, text = string.match(before, '^(%S+) ?(.*)$')
  local ids, again = {}, {}
  for id in string.gmatch(text, '%S+') do
    ids[#ids + 1] = id
  end
  if #ids > 0 then
    local records = redis.call('HMGET', jobs, unpack(ids))
    for i = 1, #ids do
      local record = records[i]
      if record and string.sub(record, 2, 2) == 'p' and string.sub(record, 22, 37) >= token
        and string.sub(record, 38, 45) == worker then
        again[#again + 1] = ids[i]
        again[#again + 1] = record
      end
    end
    join(bodies, again)
  end
  return { 'ok', digits(now), '', '', 'none', '0', '', digits(ahead), unpack(again) }
end

rights(meta, 'ZADD', 'HSET', 'ZREM', 'ZRANGE', 'HINCRBY', 'HDEL', 'LLEN', 'RPUSH', 'SET')
if stored.schema and stored.schema ~= '1' then
  return { 'foreign', digits(now), plain(stored.schema) }
end
if ARGV[8] ~= '' and (not stored.schema or stored.epoch ~= ARGV[8]) or ARGV[8] == '' and stored.shards then
  return { 'flushed', digits(now), plain(stored.epoch or '') }
end
local jumps = digits(number(stored.jumps, 0) + contact(meta, now, stamp, stored.beat))
local grace = believed(now_ms, stored.grace, longest(meta, now_ms, lease, stored.lease, stored.leased))
if stored.paused then
  return { 'paused', digits(now) }
end
local first, start = earliest(days)
if first and (first ~= day or not start) then
  return { 'moved', digits(now), plain(first) }
end

local deadline = digits(now_ms + lease)
local token_text = string.format('%016.0f', stamp)
local claimed, taken, ids, used, more_offered, large = {}, 0, {}, 0, false, false
if first then
  claimed, taken, used, more_offered, large = take_offered(jobs, processing, bucket, KEYS[10], limit, start, now_ms,
    deadline, token_text, worker)
end
if first and taken < limit and used < BUDGET then
  ids = redis.pcall('ZRANGE', bucket, '-inf', due_ms, 'BYSCORE', 'LIMIT', 0, limit - taken)
  if ids.err then
    -- Another program keeps something else under the bucket's name: the days behind it are served all the same.
    redis.call('ZREM', days, first)
    return { 'moved', digits(now), (earliest(days)) or day }
  end
end
if #ids > 0 then
  local records, _, _, larger = read_within(jobs, ids, BUDGET - used, apart)
  large = large or larger
  local due_text = string.format('%015.0f', due_ms)
  local leases, changes, odd, odd_records = {}, {}, {}, {}
  for i = 1, #ids do
    local id, record = ids[i], records[i]
    local fire = record and can_be_due(record) and string.sub(record, 7, 21)
    if not fire or fire > due_text then
      odd[#odd + 1] = id
      odd_records[#odd] = record
    else
      leases[#leases + 1] = deadline
      leases[#leases + 1] = id
      changes[#changes + 1] = id
      changes[#changes + 1] = taken_record(record, fire, token_text, worker)
    end
  end
  if #changes > 0 then
    redis.call('ZADD', processing, unpack(leases))
    redis.call('HSET', jobs, unpack(changes))
  end
  if #odd == 0 then
    redis.call('ZREM', bucket, unpack(ids))
  else
    local off = {}
    for i = 1, #changes, 2 do
      off[#off + 1] = changes[i]
    end
    if #off > 0 then
      redis.call('ZREM', bucket, unpack(off))
    end
    astray(meta, bucket, dead, processing, start, odd, odd_records, now_ms, deadline)
  end
  if taken == 0 then
    claimed = changes
  else
    for i = 1, #changes do
      claimed[#claimed + 1] = changes[i]
    end
  end
end

local next_fire, next_day = '', ''
if first then
  local head = redis.call('ZRANGE', bucket, 0, 0, 'WITHSCORES')
  for _ = 1, 10 do
    if not head[2] or tonumber(head[2]) < start + 86400000 then
      break
    end
    -- A score past the bucket's day is damage, and would hide all the days behind it.
    local past = redis.call('ZRANGE', bucket, 0, 99)
    local records = redis.call('HMGET', jobs, unpack(past))
    astray(meta, bucket, dead, processing, start, past, records, now_ms, deadline)
    head = redis.call('ZRANGE', bucket, 0, 0, 'WITHSCORES')
  end
  if head[2] then
    next_fire, next_day = head[2], first
  else
    redis.call('ZREM', days, first)
    next_day = (earliest(days)) or ''
  end
end

local fire = tonumber(next_fire)
local role = 'none'
if #ids + taken == limit or more_offered or fire and fire <= due_ms then
  hand_on(meta, wake_list, stored, worker, fire, next_day ~= '', now_ms)
elseif (fire or next_day == '') and role_ms == 0 then
  role = decline(meta, wake_list, stored, worker, fire or NEVER, now_ms)
elseif fire or next_day == '' then
  role = take_up(meta, wake_list, stored, worker, fire or NEVER, now_ms, role_ms)
end

if large then
  join(bodies, claimed)
end
local names = {}
for i = 1, #claimed, 2 do
  names[#names + 1] = claimed[i]
end
if #names > 0 then
  remember(replay_key, request, token_text .. ' ' .. table.concat(names, ' '))
end
return { #names > 0 and 'ok' or 'empty', digits(now), next_fire, next_day, role, digits(grace), jumps,
  digits(ahead), unpack(claimed) }
