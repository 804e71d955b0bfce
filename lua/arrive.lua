#!lua flags=allow-oom
-- arrive: on the way from a shard of the former cut -> scheduled, dead, done, cancelled in the shard where they belong
-- now. Puts the part of a batch that is for this shard in its places. Each batch of a former shard arrives once.
-- KEYS 1 meta  2 jobs  3 bodies  4 days  5 dead  6 done  7 dedup  8 dedup:expiry  9 schedules  10 schedules:due
--      11 arrived  12 wake  13.. buckets
-- ARGV 1 now (tests)  2 how many shards the queue had  3 which of them the batch is from  4 number of the batch, then
--      number of buckets, for each its day and that day's first ms; then for each part of the batch: kind, name, score
--      in ms or '', value, body or '':
--      s, x, d: a job that is scheduled, dead or ended: id, its score, record, body
--      k: a dedup key: digest, end of its window, id of its holder
--      n: a schedule: name, when to look at it, record
-- Returns ok | moved | over, clock in µs; with ok a letter a part: a arrived, i something of that name was here, which
--      stays; all of them '' when the batch had arrived before
--      moved: a fire time lies in none of these buckets; over: no jobs are on their way to this shard; nothing was
--      changed
-- `arrived` stays when all has arrived: a copy of a call that was held up until the queue is cut anew once more does
-- nothing either.
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I1 I2 I6 I9 I10 I11 I14 I19
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include record
--#include buckets
--#include note
--#include wake
local meta, jobs, bodies, days, arrived, wake_list = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[11], KEYS[12]
local sets = { x = KEYS[5], d = KEYS[6] }
local dedup, expiry, schedules, due = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local LAYOUT_AT, BUCKET_AT, PART = 5, 13, 5
local stored = read_meta(meta, 'clock', 'keeper_at', 'keeper_end', 'paused', 'moving')
local now, stamp = clock(ARGV[1], stored.clock)
local now_ms = math.floor(now / 1000)
if stored.moving ~= ARGV[2] then
  return { 'over', digits(now) }
end
if number(redis.call('HGET', arrived, ARGV[3]), -1) >= tonumber(ARGV[4]) then
  return { 'ok', digits(now), '' }
end
rights(meta, 'ZADD', 'HSET', 'LLEN', 'RPUSH')

-- here: which of these names a hash has.
local numbers, first = named(LAYOUT_AT)
local asked = { s = {}, k = {}, n = {} }
asked.x, asked.d = asked.s, asked.s
for at = first, #ARGV, PART do
  local list = asked[ARGV[at]]
  list[#list + 1] = ARGV[at + 1]
end
local function here(hash, names)
  local values, found = #names > 0 and redis.call('HMGET', hash, unpack(names)) or {}, {}
  for i = 1, #names do
    found[names[i]] = values[i]
  end
  return found
end
local records, holders, known = here(jobs, asked.s), here(dedup, asked.k), here(schedules, asked.n)

-- What to write to each key: members of sets, fields of hashes.
local written = {}
local letters, earliest, last = {}, nil, stamp
local function soon(ms)
  if not earliest or ms < earliest then
    earliest = ms
  end
end
-- rises: tokens and the stamps of schedules rise here too, although the clock of another server may have been ahead.
local function rises(text)
  last = math.max(last, number(text, 0))
end
for at = first, #ARGV, PART do
  local kind, name, score, value, body = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local taken = records
  if kind == 'k' or kind == 'n' then
    taken = kind == 'k' and holders or known
  end
  letters[#letters + 1] = taken[name] and 'i' or 'a'
  if taken[name] then
    score = nil -- It stays as it is.
  elseif kind == 'k' then
    note(written, dedup, name, value)
    if score ~= '' then
      note(written, expiry, score, name)
    end
  elseif kind == 'n' then
    note(written, schedules, name, value)
    rises(string.sub(value, 3, 18))
    if score ~= '' then
      note(written, due, score, name)
      soon(tonumber(score))
    end
  else
    local clear = readable(value)
    local fire = kind == 's' and clear and tonumber(string.sub(value, 7, 21))
    local b = fire and bucket_of(numbers, fire)
    if fire and not b then
      return { 'moved', digits(now) }
    elseif b then
      note(written, KEYS[BUCKET_AT - 1 + b], fire, name)
      note(written, days, ARGV[LAYOUT_AT - 1 + 2 * b], ARGV[LAYOUT_AT - 1 + 2 * b])
      soon(fire)
    elseif clear and string.find(value, '^.[xdc]') then
      note(written, sets[kind] or sets.x, score, name)
    else
      -- It is set aside, now: those who can read it look for what came since they looked last.
      note(written, sets.x, now_ms, name)
    end
    note(written, jobs, name, value)
    if body ~= '' then
      note(written, bodies, name, body)
    end
    rises(clear and string.sub(value, 22, 37))
  end
end

-- Jobs last, and their bodies before them: until all is written the batch has not arrived, and comes again.
local hashes, values = { bodies, dedup, schedules, jobs }, {}
for i = 1, #hashes do
  values[i] = written[hashes[i]] or false
  written[hashes[i]] = nil
end
for set, members in pairs(written) do
  redis.call('ZADD', set, unpack(members))
end
for i = 1, #hashes do
  if values[i] then
    redis.call('HSET', hashes[i], unpack(values[i]))
  end
end
redis.call('HSET', arrived, ARGV[3], ARGV[4])
redis.call('HSET', meta, 'clock', digits(last))
if earliest and not stored.paused then
  wake(wake_list, earliest, now_ms, stored.keeper_at, stored.keeper_end)
end
return { 'ok', digits(now), table.concat(letters) }
