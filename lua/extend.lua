#!lua flags=allow-oom
-- extend: processing stays processing. The heartbeat: renews leases, up to a cap on how long one claim may last.
-- A second send renews again, which is harmless.
-- KEYS 1 meta  2 jobs  3 processing
-- ARGV 1 now (tests)  2 lease, ms  3 longest a claim may last, ms, then for each job: id, token as 16 digits
-- Returns ok, clock in µs, one letter a job: k kept, c capped, f fenced, m missing
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I4 I5
--#include clock
--#include digits
--#include rights
--#include contact
--#include holders
local meta, jobs, processing = KEYS[1], KEYS[2], KEYS[3]
local lease, longest = tonumber(ARGV[2]), tonumber(ARGV[3])
local stored = redis.call('HMGET', meta, 'clock', 'beat', 'grace', 'lease')
local now = clock(ARGV[1], stored[1])
rights(meta, 'HSET', 'ZADD')
local now_ms = math.floor(now / 1000)
if #ARGV < 4 then
  contact(meta, now, stored[2], stored[3], stored[4], lease)
  return { 'ok', digits(now), '' }
end
local ids, records, letters = holders(jobs, 4, 2)
contact(meta, now, stored[2], stored[3], stored[4], lease)
local renewed = {}
for i = 1, #ids do
  if letters[i] == '' then
    local started = math.floor(tonumber(string.sub(records[i], 22, 37)) / 1000)
    if now_ms - started >= longest then
      letters[i] = 'c'
    else
      letters[i] = 'k'
      renewed[#renewed + 1] = math.min(now_ms + lease, started + longest)
      renewed[#renewed + 1] = ids[i]
    end
  end
end
if #renewed > 0 then
  redis.call('ZADD', processing, 'XX', unpack(renewed))
end
return { 'ok', digits(now), table.concat(letters) }
