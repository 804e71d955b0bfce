-- place: put occurrences' jobs on the wheel, unless their ids exist. `new` gathers them, and `placed` writes them.
-- new: seen, the bucket of each id; records, bodies and members, what is to be written; large, the ids with a body that
-- lies apart. Needs `bodies`.
local function gather()
  return { seen = {}, records = {}, bodies = {}, members = {}, large = {} }
end

-- place: add a job. here: the record of its id. Returns c for a job that is put there, i for one that exists.
local function place(new, here, id, fire, bucket, token, rest)
  if here or new.seen[id] then
    return 'i'
  end
  new.seen[id] = bucket
  local body
  if #rest > LARGE then
    rest, body = split(rest)
  end
  if body then
    new.large[id] = true
    new.bodies[#new.bodies + 1] = id
    new.bodies[#new.bodies + 1] = body
  end
  new.records[#new.records + 1] = id
  new.records[#new.records + 1] = '2s0000' .. fire .. token .. rest
  local members = new.members[bucket]
  if not members then
    members = {}
    new.members[bucket] = members
  end
  members[#members + 1] = tonumber(fire)
  members[#members + 1] = id
  return 'c'
end

-- placed: write what `place` gathered. keys: the bucket of each number; names: its day.
local function placed(new, jobs, bodies, days, keys, names)
  if #new.records == 0 then
    return
  end
  if #new.bodies > 0 then
    redis.call('HSET', bodies, unpack(new.bodies))
  end
  local index = {}
  for bucket in pairs(new.members) do
    index[#index + 1] = tonumber(names[bucket])
    index[#index + 1] = names[bucket]
  end
  redis.call('ZADD', days, unpack(index))
  for bucket, pairs_of in pairs(new.members) do
    redis.call('ZADD', keys[bucket], unpack(pairs_of))
  end
  redis.call('HSET', jobs, unpack(new.records))
end
