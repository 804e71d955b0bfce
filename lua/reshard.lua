#!lua
-- reshard: no job moves. Where a shard is in a reshard of its queue, each step only when the one before it is done.
-- KEYS 1 meta; with list, the list of queues, alone  2 wake  3 jobs  4 schedules  5 leaving  6 days  7 dedup:expiry
--      8 schedules:due
-- ARGV 1 now (tests)  2 which step  3 how many shards the queue had or, with close and clear, has  4 with prepare, the
--      largest stamp of the former cut, µs, then fields of `meta` and their values
--      prepare: a shard of the new cut, which takes no jobs yet
--      close: a shard of the former cut takes no new jobs from here on, and sends whoever brings some to the new cut;
--      a worker that waits there is called, to hear of it
--      open: a shard of the new cut takes new jobs, from those who looked for them in the former cut
--      end: a shard of the new cut: all has arrived; 4 how many dead jobs of the former cut were trimmed, to be counted
--      here
--      clear: an empty shard of the former cut: what is left of its settings, and of lists of what it had, goes
--      list: 3 the queue  4 what the list says of it  5 what it is to say: a caller that was frozen, while others ended
--      this cut and began another, changes nothing
-- Returns ok | other | whole, clock in µs; other: the shard is at another step, nothing was changed; whole: with close,
--      nobody marked it (`reshard`) to be cut into so many: the caller believes in a cut that is over
-- Cost O(1).
-- Keeps I1 I11
--#include clock
--#include digits
--#include number
--#include meta
--#include rights
--#include wake
--#include count
local meta, step, cut = KEYS[1], ARGV[2], ARGV[3]
local stored = read_meta(meta, 'clock', 'moving', 'shards', 'schema', 'epoch', 'reshard')
local now, stamp = clock(ARGV[1], stored.clock)
rights(meta, 'HSET', 'HDEL', 'HINCRBY', 'DEL', 'LLEN', 'RPUSH')
if step == 'prepare' then
  if stored.moving == cut then
    return { 'other', digits(now) }
  end
  redis.call('HSET', meta, 'moving', '!' .. cut, 'clock', digits(math.max(stamp, number(ARGV[4], 0))),
    'schema', '1', 'epoch', stored.epoch or digits(stamp), unpack(ARGV, 5))
  redis.call('HDEL', meta, 'shards', 'reshard')
elseif step == 'close' then
  if stored.shards == cut then
    return { 'other', digits(now) }
  elseif stored.reshard ~= cut then
    return { 'whole', digits(now) }
  end
  -- Each worker that claims here learns of it: the epoch is not the one that it serves.
  redis.call('HSET', meta, 'shards', cut, 'schema', '1', 'epoch', digits(stamp), 'clock', digits(stamp))
  push_token(KEYS[2])
elseif step == 'open' then
  if stored.moving ~= '!' .. cut then
    return { 'other', digits(now) }
  end
  redis.call('HSET', meta, 'moving', cut)
elseif step == 'list' then
  if redis.call('HGET', meta, cut) ~= ARGV[4] then
    return { 'other', digits(now) }
  end
  redis.call('HSET', meta, cut, ARGV[5])
elseif step == 'clear' then
  if stored.shards ~= cut or redis.call('EXISTS', KEYS[3], KEYS[4], KEYS[5]) > 0 then
    return { 'other', digits(now) }
  end
  -- Who still believes in this cut claims here, and learns how many shards there are now.
  redis.call('HSET', meta, 'epoch', digits(stamp), 'clock', digits(stamp))
  redis.call('HDEL', meta, 'reshard', 'paused', 'precise', 'cap', 'trimmed')
  redis.call('DEL', KEYS[6], KEYS[7], KEYS[8])
  push_token(KEYS[2])
else
  if stored.moving ~= cut then
    return { 'other', digits(now) }
  end
  redis.call('HDEL', meta, 'moving')
  if number(ARGV[4], 0) > 0 then
    count(meta, 'trimmed', number(ARGV[4], 0))
  end
end
return { 'ok', digits(now) }
