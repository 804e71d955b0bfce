-- roles: the moves between the roles of those that wait for a shard; every one of them is here. One timekeeper sleeps
-- until the next job is due, one second stands in for it, and the rest follow: they only listen for tokens. The roles
-- are in meta: keeper, keeper_at (what it sleeps for), keeper_end, second, second_end; times in ms. A worker without
-- room holds no role. `roles` has these five by name, as stored. Needs `wake`.
-- A timekeeper that did not claim this long after the time it slept for has lost its role, ms.
local LATE = 30

-- lay_down: a worker leaves the role it has. Returns whether it had one.
local function lay_down(meta, roles, worker)
  local keeps, seconds = roles.keeper == worker, roles.second == worker
  if keeps then
    redis.call('HDEL', meta, 'keeper', 'keeper_at', 'keeper_end')
    roles.keeper_end = false
  end
  if seconds then
    redis.call('HDEL', meta, 'second', 'second_end')
    roles.second_end = false
  end
  return keeps or seconds
end

-- hand_on: a worker without room lays its role down and calls one listener: for the role, for what is due, and for what
-- no timekeeper wakes for. next_fire: of the earliest job left, ms, nil when it lies in a day not looked at or nothing
-- is left. more: whether anything is left.
local function hand_on(meta, list, roles, worker, next_fire, more, now_ms)
  local had = lay_down(meta, roles, worker)
  local alone
  if next_fire then
    alone = next_fire <= now_ms or not keeps_time(next_fire, now_ms, roles.keeper_at, roles.keeper_end)
  else
    alone = more and not lasts(roles.keeper_end, now_ms)
  end
  if had or alone then
    push_token(list)
  end
end

-- decline: a worker that has room and wants no role leaves the one that it has. It calls a listener when a role is
-- free, or nobody wakes in time. wanted: as for `take_up`.
local function decline(meta, list, roles, worker, wanted, now_ms)
  lay_down(meta, roles, worker)
  if not keeps_time(wanted, now_ms, roles.keeper_at, roles.keeper_end) or not lasts(roles.second_end, now_ms) then
    push_token(list)
  end
  return 'follower'
end

-- take_up: a worker with room, that found nothing more due, takes the role that is free, or waits for a while longer in
-- its own. wanted: when the next job is due, ms. A second that becomes timekeeper calls one to stand in for it.
local function take_up(meta, list, roles, worker, wanted, now_ms, role_ms)
  local ends = now_ms + math.min(role_ms, LONGEST_ROLE)
  if roles.keeper == worker or not lasts(roles.keeper_end, now_ms) or number(roles.keeper_at, wanted + 1) > wanted then
    if roles.second == worker then
      push_token(list)
      redis.call('HDEL', meta, 'second', 'second_end')
    end
    redis.call('HSET', meta, 'keeper', worker, 'keeper_at', string.format('%.0f', wanted), 'keeper_end',
      string.format('%.0f', math.min(wanted + LATE, ends)))
    return 'timekeeper'
  end
  if roles.second == worker or not lasts(roles.second_end, now_ms) then
    redis.call('HSET', meta, 'second', worker, 'second_end', string.format('%.0f', ends))
    return 'second'
  end
  return 'follower'
end
