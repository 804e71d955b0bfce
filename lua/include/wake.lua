-- wake: push one token when a job due at `fire` (ms) comes before anything a waiting poller sleeps for.
-- keeper_at: what the timekeeper sleeps for, keeper_end: when its role lapses; both ms as stored, or false.
local function wake(list, fire, now_ms, keeper_at, keeper_end)
  if keeper_end and tonumber(keeper_end) > now_ms and tonumber(keeper_at) <= fire then
    return
  end
  if redis.call('LLEN', list) == 0 then
    redis.call('RPUSH', list, '1')
  end
end
