-- place: put an occurrence's job on the wheel, unless its id exists. changes, members and index gather what `placed`
-- then writes at once; seen holds the bucket of each id of this batch. Returns c for one that is put there,
-- i for one that exists.
local function place(here, seen, changes, members, id, fire, bucket, token, rest)
  if here or seen[id] then
    return 'i'
  end
  seen[id] = bucket
  changes[#changes + 1] = id
  changes[#changes + 1] = '2s0000' .. fire .. token .. rest
  if not members[bucket] then
    members[bucket] = {}
  end
  members[bucket][#members[bucket] + 1] = tonumber(fire)
  members[bucket][#members[bucket] + 1] = id
  return 'c'
end

-- placed: write what `place` gathered. keys: the bucket of each number; names: its day.
local function placed(jobs, days, changes, members, keys, names)
  if #changes == 0 then
    return
  end
  local index = {}
  for bucket in pairs(members) do
    index[#index + 1] = tonumber(names[bucket])
    index[#index + 1] = names[bucket]
  end
  redis.call('ZADD', days, unpack(index))
  for bucket, pairs_of in pairs(members) do
    redis.call('ZADD', keys[bucket], unpack(pairs_of))
  end
  redis.call('HSET', jobs, unpack(changes))
end
