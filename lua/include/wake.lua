-- wake: whether somebody wakes for a job in time, and the token that calls a listener. Who waits in which role is in
-- meta (`roles`): keeper_at is what the timekeeper sleeps for, keeper_end when its role lapses; ms as stored, or false.
-- No role lasts longer without a further claim, ms. An end that lies further ahead is not believed: the clock was set
-- back, or the value is damaged.
local LONGEST_ROLE = 20000

-- lasts: whether a role that ends at `ends` (as stored, or false) is held now.
local function lasts(ends, now_ms)
  local at = number(ends, 0)
  return at > now_ms and at <= now_ms + LONGEST_ROLE
end

-- keeps_time: whether a timekeeper wakes for a job due at `fire` in time.
local function keeps_time(fire, now_ms, keeper_at, keeper_end)
  return lasts(keeper_end, now_ms) and number(keeper_at, fire + 1) <= fire
end

-- push_token: push one, which wakes one listener, unless one lies there already. A list that is none any more, by
-- another program's hand, is left alone: waiting pollers look by themselves.
local function push_token(list)
  if redis.pcall('LLEN', list) == 0 then
    redis.call('RPUSH', list, '1')
  end
end

-- wake: a job due at `fire` came on the wheel: call one listener, unless a timekeeper wakes for that job in time.
local function wake(list, fire, now_ms, keeper_at, keeper_end)
  if not keeper_end or not keeps_time(fire, now_ms, keeper_at, keeper_end) then
    push_token(list)
  end
end
