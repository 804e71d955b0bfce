#!lua flags=allow-oom
-- extend: processing stays processing. The heartbeat: renews leases, up to a cap on how long one claim may last.
-- A second send renews again, which is harmless.
-- KEYS 1 meta  2 jobs  3 processing
-- ARGV 1 now (tests)  2 lease, ms, then for each job: id, token as 16 digits
-- Returns ok, clock in µs, one letter a job: k kept, f fenced, m missing, l left for another call, because the records
--      before it come to 2 MiB
-- Cost O(jobs log n), at most 1000 jobs, or 2 MiB of them, or one.
-- Keeps I4 I5
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include contact
--#include holders
--#include slices
local meta, jobs, processing = KEYS[1], KEYS[2], KEYS[3]
local lease = tonumber(ARGV[2])
local stored = read_meta(meta, 'clock', 'beat', 'lease', 'leased')
local now, stamp = clock(ARGV[1], stored.clock)
rights(meta, 'HSET', 'ZADD')
local now_ms = math.floor(now / 1000)
contact(meta, now, stamp, stored.beat)
longest(meta, now_ms, lease, stored.lease, stored.leased)
if #ARGV < 3 then
  return { 'ok', digits(now), '' }
end
local ids, tokens = claims(3, 2)
local asked = #ids
local records = read_within(jobs, ids, BUDGET)
local letters, renewed = {}, {}
for i = 1, #ids do
  letters[i] = verdict(records[i], tokens[i]) or 'k'
  if letters[i] == 'k' then
    renewed[#renewed + 1] = now_ms + lease
    renewed[#renewed + 1] = ids[i]
  end
end
for i = #ids + 1, asked do
  letters[i] = 'l'
end
-- One that another version set aside is held again: its record says so.
if #renewed > 0 then
  redis.call('ZADD', processing, unpack(renewed))
end
return { 'ok', digits(now), table.concat(letters) }
