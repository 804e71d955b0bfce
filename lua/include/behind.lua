-- behind: members of a set that stay there are looked at again at `later`, so that they hide none behind them.
local function put_behind(set, stay, later)
  if #stay == 0 then
    return
  end
  local scores = {}
  for i = 1, #stay do
    scores[2 * i - 1], scores[2 * i] = later, stay[i]
  end
  redis.call('ZADD', set, unpack(scores))
end
