#!lua flags=allow-oom
-- reap: processing -> scheduled, dead or cancelled. Takes back jobs whose lease ran out: due at once, or dead after the
-- last attempt, or cancelled when that was asked for. Takes nothing from living workers: none in the grace period after
-- a restart of the server or a jump ahead of its clock, none while the clock shows another time than the caller
-- expects, and none when it jumped unknown to the caller: a lease that was renewed by another clock may only seem to
-- have ended. Shortens leases that end later than any can: they were given by a clock that was wrong then.
-- KEYS 1 meta  2 jobs  3 bodies  4 processing  5 days  6 dead  7 dedup  8 dedup:expiry  9 wake  10 done  11.. buckets
-- ARGV 1 now (tests)  2 most jobs to take  3 lease of the caller, ms  4 most dead jobs kept  5 most failures kept
--      6 the clock that the caller expects, µs, '' when it does not know  7 how far the caller saw the clock jump, ms,
--      '' for not at all  8 how often the caller knows the clock to have jumped, '' when it does not know, then the
--      number of buckets, for each its day and that day's first ms
-- Returns ok | moved | grace | doubt, clock in µs, then
--      moved: nothing; the server's today is not among the buckets
--      grace: how often the clock was seen to jump, the end of the grace period in ms
--      doubt: how often the clock was seen to jump; it did so since the caller heard of it, or is not what the caller
--      expects, by more than a third of its lease
--      ok: how often the clock was seen to jump, how many were looked at, the ids put back on the wheel, the ids that
--      are dead, each joined by spaces, how many leases were shortened, and the ids that are cancelled
-- It ends early when the records come to 2 MiB: ask again until none was looked at.
-- Cost O(jobs log n), at most 1000 jobs, or 2 MiB of them, or one.
-- Keeps I4 I6 I7 I8 I9 I10 I11 I12 I19 I26
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include contact
--#include outage
--#include record
--#include slices
--#include buckets
--#include dedup
--#include wake
--#include count
--#include rests
--#include behind
--#include drop
--#include trim
--#include leave
--#include note
--#include moves
local meta, jobs, processing = KEYS[1], KEYS[2], KEYS[4]
local limit, lease, most, history = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local stored = read_meta(meta, 'clock', 'beat', 'grace', 'lease', 'keeper_at', 'keeper_end', 'leased',
  'server', 'jumps')
local now, stamp = clock(ARGV[1], stored.clock)
local now_ms = math.floor(now / 1000)
local fire = math.ceil(now / 1000)
local today = bucket_of(named(9), fire)
if not today then
  return { 'moved', digits(now) }
end
rights(meta, 'ZADD', 'HSET', 'ZREM', 'ZRANGE', 'HMGET', 'ZMSCORE', 'HDEL', 'ZCARD', 'HINCRBY', 'LLEN', 'RPUSH')
local jumps = number(stored.jumps, 0) + contact(meta, now, stamp, stored.beat)
local known = longest(meta, now_ms, lease, stored.lease, stored.leased)
local restarted = outage(meta, stored.server)
local told, ahead = jumped(meta, now, stamp, tonumber(ARGV[7]))
jumps = digits(told and jumps + 1 or jumps)
if restarted or ahead then
  redis.call('HSET', meta, 'grace', digits(now_ms + known), 'leased', digits(now_ms))
  return { 'grace', digits(now), jumps, digits(now_ms + known) }
end
local grace = believed(now_ms, stored.grace, known)
if grace > 0 then
  return { 'grace', digits(now), jumps, digits(grace) }
end
if number(stored.grace, 0) > now_ms then
  -- It was given in a time that a jump of the clock took back.
  redis.call('HDEL', meta, 'grace')
end
if ARGV[8] ~= '' and ARGV[8] ~= jumps or ARGV[6] ~= '' and math.abs(now - tonumber(ARGV[6])) * 3 > lease * 1000 then
  return { 'doubt', digits(now), jumps }
end
known = forget(meta, now_ms, lease, known, stored.lease, told and now_ms or stored.leased)
local latest = '(' .. digits(now_ms + known + 1000)
local wrong = redis.call('ZRANGE', processing, latest, '+inf', 'BYSCORE', 'LIMIT', 0, limit)
if #wrong > 0 then
  local ends = {}
  for i = 1, #wrong do
    ends[2 * i - 1], ends[2 * i] = now_ms + known, wrong[i]
  end
  redis.call('ZADD', processing, unpack(ends))
end
local ids = redis.call('ZRANGE', processing, '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, limit)
if #ids == 0 then
  return { 'ok', digits(now), jumps, 0, '', '', #wrong, '' }
end
local records = read_within(jobs, ids, BUDGET)
local fire_text = string.format('%015.0f', fire)
local back, dead, cancelled, orphans, out = {}, {}, {}, 0, { gone = {} }
for i = 1, #ids do
  local id, record = ids[i], records[i]
  if record and not readable(record) then
    dead[#dead + 1] = id
    stays(out, id)
    note(out, 'dead', now_ms, id)
  elseif not record or string.sub(record, 2, 2) ~= 'p' then
    -- It stands where its record says already: a script that was cut short left it here too.
    orphans = orphans + 1
    stays(out, id)
  elseif asked(record) then
    cancelled[#cancelled + 1] = id
    end_cancelled(out, id, record, now_ms)
  else
    local _, _, failures = fields(record)
    local attempt = tonumber(string.sub(record, 3, 6))
    local claimed = math.floor((tonumber(string.sub(record, 22, 37)) or 0) / 1000)
    failures = failures .. '{"at":' .. digits(now_ms) .. ',"attempt":' .. attempt .. ',"reason":"lease_expired"'
      .. ',"worker":"' .. string.gsub(string.sub(record, 38, 45), '[^%w]', '') .. '","claimed":' .. digits(claimed)
      .. '}\n'
    local _, lines = string.gsub(failures, '\n', '\n')
    while lines > history or #failures > 90000 do
      failures = string.sub(failures, string.find(failures, '\n', 1, true) + 1)
      lines = lines - 1
    end
    if attempt >= tonumber(string.sub(record, 46, 49)) then
      dead[#dead + 1] = id
      end_dead(out, id, record, failures, now_ms)
    else
      back[#back + 1] = id
      go_back(out, id, record, 0, fire, fire_text, failures, KEYS[10 + today], ARGV[8 + 2 * today])
    end
  end
end
leave(out, {
  jobs = jobs, processing = processing, days = KEYS[5], dead = KEYS[6], dedup = KEYS[7], expiry = KEYS[8],
  done = KEYS[10], bodies = KEYS[3],
}, now_ms)
if out.dead then
  trim_dead(KEYS[6], jobs, KEYS[3], meta, most, now_ms)
end
if out.soonest then
  wake(KEYS[9], out.soonest, now_ms, stored.keeper_at, stored.keeper_end)
end
if orphans > 0 then
  count(meta, 'orphans', orphans)
end
return { 'ok', digits(now), jumps, #ids, table.concat(back, ' '), table.concat(dead, ' '), #wrong,
  table.concat(cancelled, ' ') }
