-- join: give each record of id, record, id, record, ... its body, where that lies in `bodies`. A worker misses a body
-- that is gone, since the record tells its size. Needs `record`.
local function join(bodies, claimed)
  local ids, places = {}, {}
  for i = 2, #claimed, 2 do
    if apart(claimed[i]) then
      ids[#ids + 1] = claimed[i - 1]
      places[#places + 1] = i
    end
  end
  if #ids == 0 then
    return
  end
  -- It comes after the writes of a claim, so it may not fail: of a key of another type no body can be read.
  local found = redis.pcall('HMGET', bodies, unpack(ids))
  for n = 1, #places do
    claimed[places[n]] = claimed[places[n]] .. (not found.err and found[n] or '')
  end
end
