-- trim: cut the dead set to its size, oldest first, at most 100 and 2 MiB of them at a time; what goes is counted in
-- meta. A job that is not dead stays, as if it had come now. Needs `slices`, `rests`, `behind`, `drop` and `count`.
local function drop_dead(dead, jobs, bodies, meta, ids, now_ms)
  local old, stay = at_rest('x', ids, (read_within(jobs, ids, BUDGET, apart)))
  put_behind(dead, stay, now_ms)
  if #old > 0 then
    redis.call('HDEL', jobs, unpack(old))
    redis.call('ZREM', dead, unpack(old))
    drop_bodies(bodies, old)
    count(meta, 'trimmed', #old)
  end
  return #old
end

local function trim_dead(dead, jobs, bodies, meta, max, now_ms)
  local over = redis.call('ZCARD', dead) - max
  if over > 0 then
    drop_dead(dead, jobs, bodies, meta, redis.call('ZRANGE', dead, 0, math.min(over, 100) - 1), now_ms)
  end
end
