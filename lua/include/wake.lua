-- wake: push one token when a job due at `fire` (ms) comes before anything a waiting poller sleeps for.
-- keeper_at: what the timekeeper sleeps for, keeper_end: when its role lapses; both ms as stored, or false.

-- push_token: push one, unless one lies there already. A list that is none any more, by another program's hand, is left
-- alone: waiting pollers look by themselves.
local function push_token(list)
  if redis.pcall('LLEN', list) == 0 then
    redis.call('RPUSH', list, '1')
  end
end

local function wake(list, fire, now_ms, keeper_at, keeper_end)
  if not keeper_end or number(keeper_end, 0) <= now_ms or number(keeper_at, fire + 1) > fire then
    push_token(list)
  end
end
