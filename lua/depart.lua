#!lua
-- depart: scheduled, dead, done, cancelled -> on the way to another shard of their queue, which is cut anew. Takes
-- jobs, dedup keys and schedules out of a shard of the former cut, a batch at a time. A batch stays in `leaving` until
-- it has arrived, and has a number: who asks for the next one says which has arrived. So any number of callers may do
-- this side by side, each may die, and a late copy of a call loses nothing.
-- KEYS 1 meta  2 jobs  3 bodies  4 days  5 dead  6 done  7 dedup  8 dedup:expiry  9 schedules  10 schedules:due
--      11 leaving  12.. buckets
-- ARGV 1 now (tests)  2 number of the batch that has arrived, '' when the caller knows of none  3 most to take
--      4 how many to pass over: those that stayed  5 what to take, then of what:
--      wheel (bucket 12), dead, done: nothing more
--      dedup: digests
--      schedules: number of buckets, for each its day and that day's first ms; then for each schedule: name, stamp
--      that was read, number of its occurrences that may wait, their ids
-- Returns ok | again | whole, clock in µs, number of the batch that is leaving or 0, how many stayed, and the batch:
--      field, value, field, value, ... of `leaving`
--      again: a batch that has not arrived is leaving; nothing was taken
--      whole: this shard is not of a former cut; nothing was taken
-- In `leaving`: # the number, the stamp of this script, µs: none has it again, also after data were lost; j and id: its
--      place (s, x, d), its score there as 15 digits, record; b and id: its body, where that lies apart; k and digest:
--      end of its window as 15 digits, or 0, id; n and the name of a schedule: when to look at it as 15 digits, or 0,
--      record.
-- What runs here ends here. A schedule stays while an occurrence of it runs, and its occurrences stay with it. What
-- this version cannot read is set aside in the dead set where it arrives.
-- Cost O(jobs log n), at most 1000 jobs, or 2 MiB of them, or one job or schedule.
-- Keeps I1 I6 I9 I10 I11 I14 I19
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include record
--#include slices
--#include buckets
local meta, jobs, bodies, days = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local dedup, expiry, schedules, due, leaving = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local limit, past, what = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local BUCKET_AT, MORE_AT, MOST = 12, 6, 1000
local stored = read_meta(meta, 'clock', 'shards')
local now, stamp = clock(ARGV[1], stored.clock)
if not stored.shards then
  return { 'whole', digits(now), '0', 0, {} }
end
local last = number(redis.call('HGET', leaving, '#'), 0)
rights(meta, 'HSET', 'HDEL', 'ZREM', 'DEL', 'EXISTS')
if redis.call('EXISTS', leaving) == 1 and (last == 0 or ARGV[2] ~= digits(last)) then
  if last == 0 then
    -- Its number is damaged: it gets one that no batch ever had.
    last = stamp
    redis.call('HSET', meta, 'clock', digits(stamp))
    redis.call('HSET', leaving, '#', digits(stamp))
  end
  return { 'again', digits(now), digits(last), 0, redis.call('HGETALL', leaving) }
end

-- going: the jobs that leave: their ids, records, places (s, x, d), scores and sets.
local going, stayed = { ids = {}, records = {}, places = {}, scores = {}, sets = {} }, 0
local digests, owners, names, records_of = {}, {}, {}, {}
local function goes(id, record, place, score, set)
  local n = #going.ids + 1
  going.ids[n], going.records[n], going.places[n], going.scores[n], going.sets[n] = id, record, place, score, set
end

-- of_a_schedule: which of these ids may be occurrences of a schedule that is here.
local function of_a_schedule(ids)
  local asked, places = {}, {}
  for i = 1, #ids do
    local name = string.match(ids[i], '^([^@]+)@')
    if name then
      asked[#asked + 1] = name
      places[i] = #asked
    end
  end
  local found = #asked > 0 and redis.call('HMGET', schedules, unpack(asked)) or {}
  for i = 1, #ids do
    places[i] = places[i] and found[places[i]]
  end
  return places
end

-- known: the state of a record that can be read, else nil.
local function known(record)
  return readable(record) and string.match(record, '^.([spdxc])')
end

-- place_of: where a member of a set goes when it arrives, nil or false when it stays: what contradicts its record goes
-- from where its record is. One that cannot be read is set aside.
local function place_of(record)
  local state = known(record)
  if what == 'wheel' then
    return state == 's' and 's' or not state and 'x'
  elseif what == 'dead' then
    return (not state or state == 'x' or state == 's') and 'x'
  end
  return (state == 'd' or state == 'c') and 'd'
end

if what == 'dedup' then
  for i = MORE_AT, #ARGV do
    local owner = redis.call('HGET', dedup, ARGV[i])
    if owner and redis.call('HEXISTS', jobs, owner) == 0 then
      digests[#digests + 1] = ARGV[i]
      owners[#owners + 1] = owner
    elseif owner then
      stayed = stayed + 1
    end
  end
elseif what == 'schedules' then
  local numbers, at = named(MORE_AT)
  local bytes = 0
  while ARGV[at] do
    local name, expected, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    local ids = {}
    for i = 1, count do
      ids[i] = ARGV[at + 2 + i]
    end
    at = at + 3 + count
    local record = redis.call('HGET', schedules, name)
    local may = record and string.sub(record, 3, 18) == expected
      and (#names == 0 or bytes <= BUDGET and #going.ids + count <= MOST)
    local records, buckets = may and count > 0 and redis.call('HMGET', jobs, unpack(ids)) or {}, {}
    for i = 1, count do
      -- One that cannot be read is, or will be, in the dead set.
      local state = records[i] and known(records[i])
      buckets[i] = state == 's' and bucket_of(numbers, tonumber(string.sub(records[i], 7, 21)))
      may = may and state ~= 'p' and (state ~= 's' or buckets[i])
    end
    if may then
      for i = 1, count do
        if buckets[i] then
          bytes = bytes + #records[i] + (apart(records[i]) or 0)
          goes(ids[i], records[i], 's', string.sub(records[i], 7, 21), KEYS[BUCKET_AT - 1 + buckets[i]])
        end
      end
      names[#names + 1] = name
      records_of[#names] = record
    elseif record then
      stayed = stayed + 1
    end
  end
else
  local set = what == 'wheel' and KEYS[BUCKET_AT] or what == 'dead' and KEYS[5] or KEYS[6]
  local ids, scores = {}, {}
  -- Latest first: what is due soon fires here in the meantime.
  local found = redis.call('ZRANGE', set, past, past + limit - 1, 'REV', 'WITHSCORES')
  for i = 1, #found, 2 do
    ids[#ids + 1] = found[i]
    scores[#scores + 1] = found[i + 1]
  end
  local records = read_within(jobs, ids, BUDGET, apart)
  local waits = of_a_schedule(ids)
  for i = 1, #ids do
    local place = records[i] and not waits[i] and place_of(records[i])
    if place then
      goes(ids[i], records[i], place, scores[i], set)
    else
      stayed = stayed + 1
    end
  end
end

-- The batch, as it is kept in `leaving`, and what goes from where.
local batch, off = {}, {}
local function put(field, value)
  batch[#batch + 1] = field
  batch[#batch + 1] = value
end
local function score_text(score)
  return string.format('%015.0f', math.min(number(score, 0), 999999999999999))
end
local large, own, own_of = {}, {}, {}
for i = 1, #going.ids do
  local id, record, set = going.ids[i], going.records[i], going.sets[i]
  put('j' .. id, going.places[i] .. score_text(going.scores[i]) .. record)
  off[set] = off[set] or {}
  off[set][#off[set] + 1] = id
  local clear = readable(record)
  if not clear or apart(record) then
    large[#large + 1] = id
  end
  local digest = clear and fields(record)
  if digest then
    own[#own + 1] = digest
    own_of[#own] = id
  end
end
local found = #large > 0 and redis.call('HMGET', bodies, unpack(large)) or {}
for i = 1, #large do
  if found[i] then
    put('b' .. large[i], found[i])
  end
end
local held = #own > 0 and redis.call('HMGET', dedup, unpack(own)) or {}
for i = 1, #own do
  if held[i] == own_of[i] then
    digests[#digests + 1] = own[i]
    owners[#owners + 1] = own_of[i]
  end
end
local ends = #digests > 0 and redis.call('ZMSCORE', expiry, unpack(digests)) or {}
for i = 1, #digests do
  put('k' .. digests[i], score_text(ends[i]) .. owners[i])
end
local looks = #names > 0 and redis.call('ZMSCORE', due, unpack(names)) or {}
for i = 1, #names do
  put('n' .. names[i], score_text(looks[i]) .. records_of[i])
end

-- What was there has arrived.
redis.call('DEL', leaving)
if #batch == 0 then
  return { 'ok', digits(now), '0', stayed, {} }
end
redis.call('HSET', meta, 'clock', digits(stamp))
redis.call('HSET', leaving, '#', digits(stamp), unpack(batch))
if #going.ids > 0 then
  redis.call('HDEL', jobs, unpack(going.ids))
end
if #digests > 0 then
  redis.call('HDEL', dedup, unpack(digests))
  redis.call('ZREM', expiry, unpack(digests))
end
if #names > 0 then
  redis.call('HDEL', schedules, unpack(names))
  redis.call('ZREM', due, unpack(names))
end
for set, ids in pairs(off) do
  redis.call('ZREM', set, unpack(ids))
end
if #large > 0 then
  redis.call('HDEL', bodies, unpack(large))
end
for b = BUCKET_AT, #KEYS do
  if off[KEYS[b]] and redis.call('EXISTS', KEYS[b]) == 0 then
    redis.call('ZREM', days, string.match(KEYS[b], '%d+$'))
  end
end
return { 'ok', digits(now), digits(stamp), stayed, batch }
