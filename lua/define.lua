#!lua
-- define: nothing, scheduled, processing -> scheduled, nothing. Writes a schedule's record, or deletes it: takes what
-- still waits of its occurrences off the wheel and puts those of the new definition there, all at once or not at all.
-- A worker that claimed an occurrence too late to start it gives it back to its schedule in the same way.
-- KEYS 1 meta  2 replay  3 jobs  4 bodies  5 days  6 wake  7 schedules  8 schedules:due  9.. buckets (and processing)
-- ARGV 1 now (tests)  2 request id  3 name  4 stamp that was read; when there must be none '' or, of a queue that is
--      being cut anew, how many shards it had, when the caller has looked for the schedule there  5 status letter, ''
--      to delete  6 when to look again in ms or ''  7 the record from its line feed on  8 number of buckets, then their
--      days, '' for processing; then how many occurrences to take back, for each: id, fire time as 15 digits, number
--      of its bucket, ''; or, for one that is held: id, token as 16 digits, number of processing, the latest ms at
--      which it may start; then how many jobs, for each: id, fire time as 15 digits, number of its bucket, record from
--      the worker's field on
-- Returns ok | stale | started | early | foreign | shards | moving, clock in µs, then
--      foreign: the schema that another version wrote
--      shards: how many the queue has: this one takes no new schedule
--      moving: how many it had: schedules of those are on their way here, look for this one there first; after a '!'
--      some of those still take new ones, and this one does not
--      stale: nothing; the record is not the one that the caller built on, or it exists already
--      started: ids of occurrences to take back that have left their place on the wheel, or their holder; early: ids
--      of occurrences that are held and may still start; each with spaces between
--      ok: a letter a job: c created, i the id exists
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I1 I2 I9 I10 I14
--#include clock
--#include digits
--#include number
--#include meta
--#include plain
--#include rights
--#include replay
--#include wake
--#include bodies
--#include drop
--#include place
local meta, replay_key, jobs, bodies, days = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local schedules, due = KEYS[7], KEYS[8]
local request, name, expected = ARGV[2], ARGV[3], ARGV[4]
local stored = read_meta(meta, 'clock', 'keeper_at', 'keeper_end', 'schema', 'shards', 'moving')
local now, stamp = clock(ARGV[1], stored.clock)
local before = replay(replay_key, request)
if before then
  return refused(before, now) or { 'ok', digits(now), before }
end
if stored.schema and stored.schema ~= '1' then
  remember(replay_key, request, '!foreign ' .. plain(stored.schema))
  return { 'foreign', digits(now), plain(stored.schema) }
end
-- A stamp has 16 digits.
local is_new = #expected < 16
if is_new and stored.shards then
  remember(replay_key, request, '!shards ' .. plain(stored.shards))
  return { 'shards', digits(now), plain(stored.shards) }
end
if is_new and stored.moving and stored.moving ~= expected and string.find(stored.moving, '^!?%d+$') then
  remember(replay_key, request, '!moving ' .. stored.moving)
  return { 'moving', digits(now), stored.moving }
end
rights(meta, 'ZADD', 'HSET', 'ZREM', 'HDEL', 'EXISTS', 'LLEN', 'RPUSH', 'SET')
local record = redis.call('HGET', schedules, name)
if record and string.sub(record, 3, 18) ~= expected or not record and not is_new then
  remember(replay_key, request, '!stale ')
  return { 'stale', digits(now) }
end
local founds = not stored.schema and redis.call('EXISTS', jobs) == 0

local days_of, keys = {}, {}
local bucket_count = tonumber(ARGV[8])
for b = 1, bucket_count do
  days_of[b], keys[b] = ARGV[8 + b], KEYS[8 + b]
end
local at = 9 + bucket_count
local back, ids = {}, {}
for _ = 1, tonumber(ARGV[at]) do
  back[#back + 1] = at + 1
  ids[#ids + 1] = ARGV[at + 1]
  at = at + 4
end
at = at + 1
local new = {}
for _ = 1, tonumber(ARGV[at]) do
  new[#new + 1] = at + 1
  ids[#ids + 1] = ARGV[at + 1]
  at = at + 4
end
local here = {}
if #ids > 0 then
  local found = redis.call('HMGET', jobs, unpack(ids))
  for i = 1, #ids do
    here[ids[i]] = found[i]
  end
end
-- Only what still waits for the time that the caller knows can be taken back. All else is decided: it runs or ran, and
-- may be forgotten by now, or a person moved, cancelled or purged it.
local started, early, gone, taken = {}, {}, {}, {}
for _, b in ipairs(back) do
  local id, bucket = ARGV[b], tonumber(ARGV[b + 2])
  local found = here[id] and string.sub(here[id], 2, 21)
  local there = found == 's0000' .. ARGV[b + 1]
  if days_of[bucket] == '' then
    there = here[id] and string.find(here[id], '^[12]p') and string.sub(here[id], 22, 37) == ARGV[b + 1]
    if there and math.floor(now / 1000) <= tonumber(ARGV[b + 3]) then
      early[#early + 1] = id
    end
  end
  if there then
    gone[#gone + 1] = id
    taken[bucket] = taken[bucket] or {}
    taken[bucket][#taken[bucket] + 1] = id
    here[id] = false
  else
    started[#started + 1] = id
  end
end
if #started > 0 then
  local names = table.concat(started, ' ')
  remember(replay_key, request, '!started ' .. names)
  return { 'started', digits(now), names }
end
if #early > 0 then
  local names = table.concat(early, ' ')
  remember(replay_key, request, '!early ' .. names)
  return { 'early', digits(now), names }
end

local token = string.format('%016.0f', stamp)
local added, letters, earliest = gather(), {}, nil
for i, j in ipairs(new) do
  letters[i] = place(added, here[ARGV[j]], ARGV[j], ARGV[j + 1], tonumber(ARGV[j + 2]), token, ARGV[j + 3])
  if letters[i] == 'c' and (not earliest or tonumber(ARGV[j + 1]) < earliest) then
    earliest = tonumber(ARGV[j + 1])
  end
end
placed(added, jobs, bodies, days, keys, days_of)
if ARGV[5] == '' then
  redis.call('HDEL', schedules, name)
  redis.call('ZREM', due, name)
else
  redis.call('HSET', schedules, name, '1' .. ARGV[5] .. token .. ARGV[7])
  if ARGV[6] == '' then
    redis.call('ZREM', due, name)
  else
    redis.call('ZADD', due, ARGV[6], name)
  end
end
-- A job that was taken off and put there again keeps its new record and its new place. The others lose theirs.
local dropped, bare = {}, {}
for _, id in ipairs(gone) do
  if not added.seen[id] then
    dropped[#dropped + 1] = id
  end
  if not added.large[id] then
    bare[#bare + 1] = id
  end
end
if #dropped > 0 then
  redis.call('HDEL', jobs, unpack(dropped))
end
for bucket, members_of in pairs(taken) do
  local off = {}
  for _, id in ipairs(members_of) do
    if added.seen[id] ~= bucket then
      off[#off + 1] = id
    end
  end
  if #off > 0 then
    redis.call('ZREM', keys[bucket], unpack(off))
  end
end
for bucket in pairs(taken) do
  if days_of[bucket] ~= '' and not added.members[bucket] and redis.call('EXISTS', keys[bucket]) == 0 then
    redis.call('ZREM', days, days_of[bucket])
  end
end
drop_bodies(bodies, bare)
-- A token for whoever waits: it looks at the schedules too, which may be due before it would look by itself.
local first = tonumber(ARGV[6]) or earliest
if first then
  wake(KEYS[6], math.min(earliest or first, first), math.floor(now / 1000), stored.keeper_at, stored.keeper_end)
end
if founds then
  redis.call('HSET', meta, 'clock', digits(stamp), 'schema', '1', 'epoch', digits(stamp))
else
  redis.call('HSET', meta, 'clock', digits(stamp))
end
local answer = table.concat(letters)
remember(replay_key, request, answer)
return { 'ok', digits(now), answer }
