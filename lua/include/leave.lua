-- leave: the one way out of processing. `out` tells what becomes of each job that a script takes out; `leave` writes it
-- all at once: first the places that the jobs go to, then their records, and their leases last. Needs `dedup`, `drop`.
-- out: gone, ids whose records go, at least {}; the other lists are nil where no move of `moves` made them.
-- keys: jobs, processing, and of bodies, done, dead, dedup, expiry and days those that a move of the script needs.
-- Where jobs are dead now, the script trims their set; for out.soonest, when it is there, somebody must wake.
-- Example: { gone = { 'a' }, staying = { 'b' }, written = { 'b', <record> }, dead = { 1900000000000, 'b' } }: a is
-- done, b is dead.
local function leave(out, keys, now_ms)
  if out.soonest then
    redis.call('ZADD', keys.days, unpack(out.days))
    for bucket, members in pairs(out.wheel) do
      redis.call('ZADD', bucket, unpack(members))
    end
  end
  if out.done then
    redis.call('ZADD', keys.done, unpack(out.done))
  end
  if out.dead then
    redis.call('ZADD', keys.dead, unpack(out.dead))
  end
  if out.written then
    redis.call('HSET', keys.jobs, unpack(out.written))
  end
  local off, staying = out.gone, out.staying
  if #off > 0 then
    redis.call('HDEL', keys.jobs, unpack(off))
  end
  if staying then
    for i = 1, #staying do
      off[#off + 1] = staying[i]
    end
  end
  if #off > 0 then
    redis.call('ZREM', keys.processing, unpack(off))
  end
  if out.bodies then
    drop_bodies(keys.bodies, out.bodies)
  end
  if out.freed then
    release_dedup(keys.dedup, keys.expiry, out.freed, out.freed_by, now_ms, false)
  end
  if out.forced then
    release_dedup(keys.dedup, keys.expiry, out.forced, out.forced_by, now_ms, true)
  end
end
