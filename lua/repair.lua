#!lua flags=allow-oom
-- repair: anywhere -> where the record says. Looks at jobs, day buckets, dedup keys, schedules and fields of meta that
-- may be damaged or contradict each other, and with `mend`, by a person, puts them right. A worker that meets a damaged
-- list of schedules puts that list right by `tend`; by `place` it takes back jobs that a version which cannot read them
-- set aside in the dead set, and by `clear` it takes those off there that went on meanwhile. A second send finds
-- nothing left to mend.
-- KEYS 1 meta  2 jobs  3 bodies  4 days  5 processing  6 dead  7 done  8 dedup  9 dedup:expiry  10 wake  11 schedules
--      12 schedules:due  13.. buckets
-- ARGV 1 now (tests)  2 look, mend, tend, place or clear  3 number of buckets  4 number of digests  5 number of
--      schedules, then for each bucket: day, first ms of the day; then the digests of dedup keys; then for each
--      schedule: name, and until when it must be looked at in ms, or ''; then the ids of jobs
-- Returns ok | foreign, clock in µs, then
--      foreign: the schema that another version wrote
--      ok: one letter a job, one a bucket, one a digest, one a schedule, the damaged fields of meta joined by spaces,
--      and the schema there was before ('' for none)
--      job: c consistent, g gone (no record, and in no set), o without a record, f in the wrong place, p unreadable and
--      in no set, t its time in its set cannot be, m its day is not among the buckets, b a body lies apart that no
--      record asks for, n the body is gone that its record asks for, which cannot be mended; with `place` and `clear`
--      e in the dead set and elsewhere, or without a record, which only `clear` takes off there, and l left for another
--      call, because the records before it come to 2 MiB
--      bucket: c consistent, e in the index and empty, l not in the index
--      digest: c consistent, s stale
--      schedule: c consistent, o in the list of what is due without a record, p there and not active, l active and not
--      there, s active and there with a time that cannot be, u its record is of another version
-- Cost O(jobs buckets log n), at most 500 jobs, 20 buckets, 500 digests and 500 schedules.
-- Keeps I9 I10 I11 I14 I19
--#include clock
--#include digits
--#include number
--#include meta
--#include plain
--#include rights
--#include record
--#include buckets
--#include keeps
--#include slices
--#include wake
--#include count
local meta, jobs, bodies, days, processing, dead, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local dedup, expiry = KEYS[8], KEYS[9]
local schedules, schedules_due = KEYS[11], KEYS[12]
local mend, clears = ARGV[2] == 'mend', ARGV[2] == 'clear'
local places = clears or ARGV[2] == 'place'
local tends = mend or ARGV[2] == 'tend'
local bucket_count, digest_count, schedule_count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local stored = read_meta(meta, 'clock', 'schema', 'lease', 'keeper_at', 'keeper_end', 'jump')
local now, stamp = clock(ARGV[1], stored.clock)
local now_ms = math.floor(now / 1000)
if stored.schema and stored.schema ~= '1' then
  return { 'foreign', digits(now), plain(stored.schema) }
end
-- The end of the year 9999, and the longest lease that is believed, ms.
local LAST, LONGEST = 253402300799999, 86400000

-- between: a stored number that lies within bounds, or nil for any other text.
local function between(text, least, most)
  local number = text and tonumber(text)
  if number and number >= least and number <= most then
    return number
  end
  return nil
end

local lease = between(stored.lease, 1, LONGEST) or 30000
local names, starts, zsets, ids, keys = {}, {}, {}, {}, {}
local listed, latest = {}, {}
local at = 6
for b = 1, bucket_count do
  names[b], starts[b], zsets[b] = ARGV[at], tonumber(ARGV[at + 1]), KEYS[12 + b]
  at = at + 2
end
for i = at, at + digest_count - 1 do
  keys[#keys + 1] = ARGV[i]
end
at = at + digest_count
for n = 1, schedule_count do
  listed[n], latest[n] = ARGV[at], between(ARGV[at + 1], 0, LAST) or LAST
  at = at + 2
end
for i = at, #ARGV do
  ids[#ids + 1] = ARGV[i]
end
zsets[bucket_count + 1], zsets[bucket_count + 2], zsets[bucket_count + 3] = processing, dead, done

-- where: which of the sets a record belongs to and with which score, nil when its day is not among the buckets.
local function where(record)
  local state = readable(record) and string.sub(record, 2, 2) or 'x'
  if state == 's' then
    local fire = tonumber(string.sub(record, 7, 21))
    for b = 1, bucket_count do
      if in_day(fire, starts[b]) then
        return b, fire
      end
    end
    return nil
  elseif state == 'p' then
    return bucket_count + 1, now_ms + lease
  elseif state == 'd' or state == 'c' then
    local _, keep = fields(record)
    return bucket_count + 3, now_ms + (keep or 0)
  end
  return bucket_count + 2, now_ms
end

-- within: whether a time in the set of running, dead or ended jobs can be: a lease ends soon, a death was before now,
-- and a tombstone ends within the longest time to keep. A minute is left to clocks that differ.
local function within(home, score)
  local most = ({ now_ms + 2 * lease + 60000, now_ms + 60000, now_ms + 10000059999 })[home - bucket_count]
  return between(score, 0, most) ~= nil
end

-- astray_body: b or n where the body that lies apart, or does not, contradicts the record; nil where it does not.
local function astray_body(id, record)
  local there = redis.call('HSTRLEN', bodies, id)
  if record and not readable(record) then
    return nil
  elseif record and apart(record) then
    return there ~= apart(record) and 'n' or nil
  end
  return there > 0 and 'b' or nil
end

local letters, off, on, fenced, bare = {}, {}, {}, {}, {}
for z = 1, #zsets do
  off[z], on[z] = {}, {}
end
local earliest
local asked = #ids
if asked > 0 then
  local records = places and read_within(jobs, ids, BUDGET) or redis.call('HMGET', jobs, unpack(ids))
  local scores = {}
  for z = 1, #zsets do
    scores[z] = redis.call('ZMSCORE', zsets[z], unpack(ids))
  end
  for i = 1, #ids do
    local record, found = records[i], 0
    for z = 1, #zsets do
      found = scores[z][i] and found + 1 or found
    end
    local home, score = nil, nil
    if record then
      home, score = where(record)
    end
    local unread = record and not (readable(record) and string.find(record, '^.[spdxc]'))
    if not record then
      letters[i] = found == 0 and 'g' or 'o'
    elseif unread and found > 0 then
      -- Claim and reap set it aside when its time comes; until then it stays where its own version put it.
      letters[i], home = 'c', nil
    elseif unread then
      letters[i] = 'p'
    elseif not home then
      letters[i] = 'm'
    elseif found == 1 and home > bucket_count and scores[home][i] and not within(home, scores[home][i]) then
      letters[i] = 't'
    elseif found == 1 and scores[home][i] and (home > bucket_count or tonumber(scores[home][i]) == score) then
      letters[i], home = 'c', nil
    else
      letters[i] = 'f'
    end
    if places and string.find(letters[i], '[ofpt]') then
      -- What is in the dead set alone, and lives, was set aside. What is elsewhere too went on since, or is damaged.
      local there = scores[bucket_count + 2][i]
      local aside = letters[i] == 'f' and found == 1 and there and home <= bucket_count + 1
      local went_on = there and (letters[i] == 'o' or letters[i] == 'f' and scores[home][i])
      -- What is held is renewed by its holder since.
      local clear = went_on and (clears or home == bucket_count + 1)
      if not aside and not clear then
        letters[i], home = went_on and 'e' or 'c', nil
      end
    end
    local body = not places and astray_body(ids[i], record)
    if body and string.find(letters[i], '[cg]') then
      letters[i] = body
    end
    if body == 'b' then
      bare[#bare + 1] = ids[i]
    end
    local moves = home and letters[i] ~= 'c'
    if letters[i] == 'o' or moves then
      for z = 1, #zsets do
        if scores[z][i] and z ~= home then
          off[z][#off[z] + 1] = ids[i]
        end
      end
    end
    if moves and places and home == bucket_count + 1 and not scores[home][i] then
      -- Its lease was over when it was set aside. Its holder is fenced, and `reap` takes the job.
      local token = string.format('%016.0f', tonumber(string.sub(record, 22, 37)) + 1)
      fenced[#fenced + 1] = ids[i]
      fenced[#fenced + 1] = string.sub(record, 1, 21) .. token .. string.sub(record, 38)
      score = now_ms
    end
    if moves and (not scores[home][i] or home <= bucket_count or letters[i] == 't') then
      on[home][#on[home] + 1] = score
      on[home][#on[home] + 1] = ids[i]
      if home <= bucket_count and (not earliest or score < earliest) then
        earliest = score
      end
    end
  end
  for i = #ids + 1, asked do
    letters[i] = 'l'
  end
end

local stale, held_letters = {}, {}
if #keys > 0 then
  local owners = redis.call('HMGET', dedup, unpack(keys))
  local ends = redis.call('ZMSCORE', expiry, unpack(keys))
  local owned = {}
  for i = 1, #keys do
    owned[i] = owners[i] or ''
  end
  local records = redis.call('HMGET', jobs, unpack(owned))
  for i = 1, #keys do
    local holds = owners[i] and keeps(records[i], keys[i])
    local lasts = owners[i] and ends[i] and tonumber(ends[i]) > now_ms
    local known = owners[i] or ends[i]
    held_letters[i] = (holds or lasts or not known) and 'c' or 's'
    if held_letters[i] == 's' then
      stale[#stale + 1] = keys[i]
    end
  end
end

local looks, rests, look_letters = {}, {}, {}
if #listed > 0 then
  local records = redis.call('HMGET', schedules, unpack(listed))
  local times = redis.call('ZMSCORE', schedules_due, unpack(listed))
  for n = 1, #listed do
    local head = records[n] and string.sub(records[n], 1, 2)
    if not head then
      look_letters[n] = times[n] and 'o' or 'c'
    elseif head == '1p' or head == '1f' then
      look_letters[n] = times[n] and 'p' or 'c'
    elseif head ~= '1a' then
      look_letters[n] = 'u'
    elseif not times[n] then
      look_letters[n] = 'l'
    else
      look_letters[n] = between(times[n], 0, latest[n]) and 'c' or 's'
    end
    if look_letters[n] == 'o' or look_letters[n] == 'p' then
      rests[#rests + 1] = listed[n]
    elseif look_letters[n] == 'l' or look_letters[n] == 's' then
      looks[#looks + 1] = digits(now_ms)
      looks[#looks + 1] = listed[n]
    end
  end
end

-- The least and the most that each field of meta may say. A field without a value is as it should be.
local soon = now_ms + 2 * lease + 60000
-- After a jump ahead and back the last stamp lies ahead and rises from there, which is right.
local after_jump = number(string.match(stored.jump or '', '^%d+ %-%d+ (%d+)$'), 0) + 1000000000
local fields_of = {
  clock = { 0, math.max(now + 60000000, after_jump) }, beat = { 0, now + 60000000 }, lease = { 1, LONGEST },
  leased = { 0, now_ms + 60000 },
  grace = { 0, soon }, keeper_at = { 0, 9007199254740992 }, keeper_end = { 0, soon }, second_end = { 0, soon },
  cap = { 1, 9007199254740992 }, trimmed = { 0, 9007199254740992 }, orphans = { 0, 9007199254740992 },
  jumps = { 0, 9007199254740992 }, epoch = { 0, 9007199254740992 },
}
local field_names = { 'clock', 'beat', 'lease', 'leased', 'grace', 'keeper_at', 'keeper_end', 'second_end', 'cap',
  'trimmed', 'orphans', 'jumps', 'epoch' }
local values, damaged, lapsed, new_epoch = redis.call('HMGET', meta, unpack(field_names)), {}, {}, not stored.schema
for f = 1, #field_names do
  local limits = fields_of[field_names[f]]
  if values[f] and not between(values[f], limits[1], limits[2]) then
    damaged[#damaged + 1] = field_names[f]
    if field_names[f] == 'epoch' then
      new_epoch = true
    elseif field_names[f] == 'clock' then
      -- Tokens go on from the time as it is; those of a record still rise from its last one.
      stamp = now
    else
      lapsed[#lapsed + 1] = field_names[f]
    end
  end
end

local mended = 0
if mend then
  rights(meta, 'ZADD', 'ZREM', 'HDEL', 'HSET', 'HINCRBY', 'EXISTS', 'ZMSCORE', 'LLEN', 'RPUSH')
elseif places then
  rights(meta, 'ZADD', 'HSET', 'ZREM', 'LLEN', 'RPUSH')
elseif tends then
  rights(meta, 'ZADD', 'ZREM')
end
if tends and #looks > 0 then
  redis.call('ZADD', schedules_due, unpack(looks))
end
if tends and #rests > 0 then
  redis.call('ZREM', schedules_due, unpack(rests))
end
if mend or places then
  for z = 1, #zsets do
    if #on[z] > 0 then
      redis.call('ZADD', zsets[z], unpack(on[z]))
    end
  end
  if #fenced > 0 then
    redis.call('HSET', jobs, unpack(fenced))
  end
  for z = 1, #zsets do
    if #off[z] > 0 then
      redis.call('ZREM', zsets[z], unpack(off[z]))
    end
  end
end
if mend then
  if #bare > 0 then
    redis.call('HDEL', bodies, unpack(bare))
  end
  for i = 1, #ids do
    if string.find(letters[i], '[ofptb]') then
      mended = mended + 1
    end
  end
  if #stale > 0 then
    redis.call('HDEL', dedup, unpack(stale))
    redis.call('ZREM', expiry, unpack(stale))
    mended = mended + #stale
  end
end

local shelf = {}
if bucket_count > 0 then
  local indexed = redis.call('ZMSCORE', days, unpack(names))
  for b = 1, bucket_count do
    local there = redis.call('EXISTS', zsets[b]) == 1
    if there and not indexed[b] then
      shelf[b] = 'l'
      if mend or places then
        redis.call('ZADD', days, names[b], names[b])
      end
    elseif indexed[b] and not there then
      shelf[b] = 'e'
      if mend then
        redis.call('ZREM', days, names[b])
      end
    else
      shelf[b] = 'c'
    end
  end
end

-- A worker that takes back what is due claims it itself, before an older one can set it aside again.
if earliest and (mend or places and earliest > now_ms) then
  wake(KEYS[10], earliest, now_ms, stored.keeper_at, stored.keeper_end)
end
if mend then
  if new_epoch then
    redis.call('HSET', meta, 'schema', '1', 'epoch', digits(stamp))
  end
  if #lapsed > 0 then
    redis.call('HDEL', meta, unpack(lapsed))
  end
  if mended > 0 then
    count(meta, 'orphans', mended)
  end
  redis.call('HSET', meta, 'clock', digits(stamp))
end
return { 'ok', digits(now), table.concat(letters), table.concat(shelf), table.concat(held_letters),
  table.concat(look_letters), table.concat(damaged, ' '), plain(stored.schema or '') }
