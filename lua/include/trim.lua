-- trim: cut the dead set to its size, oldest first and at most 100 at a time; what goes is counted in meta.
local function trim_dead(dead, jobs, meta, max)
  local over = redis.call('ZCARD', dead) - max
  if over <= 0 then
    return
  end
  local old = redis.call('ZRANGE', dead, 0, math.min(over, 100) - 1)
  redis.call('HDEL', jobs, unpack(old))
  redis.call('ZREM', dead, unpack(old))
  count(meta, 'trimmed', #old)
end
