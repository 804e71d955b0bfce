#!lua flags=allow-oom
-- step_down: no job moves. A worker that stops claiming, or has no room when its time comes, leaves the role in which
-- it waits and calls a listener, who takes it up.
-- KEYS 1 meta  2 replay  3 wake
-- ARGV 1 now (tests)  2 request id, of the lane of the worker's claims  3 worker, 8 characters
-- Returns ok, clock in µs
-- Cost O(1).
-- Keeps I25
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include replay
--#include contact
--#include wake
--#include roles
local meta, replay_key, request, worker = KEYS[1], KEYS[2], ARGV[2], ARGV[3]
local stored = read_meta(meta, 'clock', 'beat', 'keeper', 'second')
local now, stamp = clock(ARGV[1], stored.clock)
if replay(replay_key, request) then
  return { 'ok', digits(now) }
end
rights(meta, 'HSET', 'HDEL', 'LLEN', 'RPUSH', 'SET')
contact(meta, now, stamp, stored.beat)
if lay_down(meta, stored, worker) then
  push_token(KEYS[3])
end
remember(replay_key, request, '')
return { 'ok', digits(now) }
