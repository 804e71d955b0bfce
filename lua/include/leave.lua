-- leave: the one way out of processing. A script says of each job that it takes out what becomes of it, by one of the
-- moves below; `leave` then writes it all at once: first the places that the jobs go to, then their records, and their
-- leases last. Needs `record` and `dedup`.
-- Example: end_well('a', ...), go_back('b', ...) and leave(...): a is done, b is on the wheel.
-- Ids whose records go, ids whose records stay, and of these id and new record, in turns, as far as it is another one.
local gone, staying, written = {}, {}, {}
-- Score and id, in turns, for done and dead; the same by key of a bucket for the wheel, with its days; when the first
-- of those is due.
local to_done, to_dead, to_wheel, to_days, soonest = {}, {}, {}, {}, nil
-- Dedup keys of jobs that ended.
local freed, freed_by = {}, {}

local function free_key(id, digest)
  if digest then
    freed[#freed + 1] = digest
    freed_by[#freed_by + 1] = id
  end
end

-- end_well: the job is done. It leaves a tombstone for its `keep` time, or nothing.
local function end_well(id, record, now_ms)
  local digest, keep
  if string.sub(record, 50, 51) ~= '00' then
    record = renewed(record)
    digest, keep = fields(record)
    free_key(id, digest)
  end
  if not keep or keep == 0 then
    gone[#gone + 1] = id
    return
  end
  staying[#staying + 1] = id
  written[#written + 1] = id
  written[#written + 1] = tombstone(record, 'd')
  to_done[#to_done + 1] = now_ms + keep
  to_done[#to_done + 1] = id
end

-- set_aside: the job is listed as dead, with its record as it is: this version cannot read it.
local function set_aside(id, now_ms)
  staying[#staying + 1] = id
  to_dead[#to_dead + 1] = now_ms
  to_dead[#to_dead + 1] = id
end

-- end_dead: the job will not run again by itself. failures: lines of JSON, the last of which says why.
local function end_dead(id, record, failures, now_ms)
  set_aside(id, now_ms)
  record = renewed(record)
  written[#written + 1] = id
  written[#written + 1] = '2x' .. string.sub(record, 3, 49) .. with_failures(record, failures)
  free_key(id, (fields(record)))
end

-- go_back: the job is on the wheel again, due at `fire` (ms, and as 15 digits), in the bucket of that day. uncounted: 1
-- when its attempt does not count, else 0. failures: nil leaves those that it has.
local function go_back(id, record, uncounted, fire, text, failures, bucket, day)
  local members = to_wheel[bucket]
  if not members then
    members = {}
    to_wheel[bucket] = members
    to_days[#to_days + 1] = day
    to_days[#to_days + 1] = day
  end
  members[#members + 1] = fire
  members[#members + 1] = id
  if not soonest or fire < soonest then
    soonest = fire
  end
  record = renewed(record)
  local attempt = math.max(0, tonumber(string.sub(record, 3, 6)) - uncounted)
  staying[#staying + 1] = id
  written[#written + 1] = id
  written[#written + 1] = '2s' .. string.format('%04d', attempt) .. text .. string.sub(record, 22, 49)
    .. (failures and with_failures(record, failures) or string.sub(record, 50))
end

-- belongs_elsewhere: only the lease goes. The job stands where its record says already, or has no record.
local function belongs_elsewhere(id)
  staying[#staying + 1] = id
end

-- leave: write it. keys: jobs, processing, and of done, dead, dedup, expiry and days those that a move of the script
-- needs. Returns whether jobs went to the dead set, which is to be trimmed then, and when the first one that went back
-- is due: somebody must wake for it.
local function leave(keys, now_ms)
  if soonest then
    redis.call('ZADD', keys.days, unpack(to_days))
    for bucket, members in pairs(to_wheel) do
      redis.call('ZADD', bucket, unpack(members))
    end
  end
  if #to_done > 0 then
    redis.call('ZADD', keys.done, unpack(to_done))
  end
  if #to_dead > 0 then
    redis.call('ZADD', keys.dead, unpack(to_dead))
  end
  if #written > 0 then
    redis.call('HSET', keys.jobs, unpack(written))
  end
  if #gone > 0 then
    redis.call('HDEL', keys.jobs, unpack(gone))
  end
  for i = 1, #staying do
    gone[#gone + 1] = staying[i]
  end
  if #gone > 0 then
    redis.call('ZREM', keys.processing, unpack(gone))
  end
  release_dedup(keys.dedup, keys.expiry, freed, freed_by, now_ms, false)
  return #to_dead > 0, soonest
end
