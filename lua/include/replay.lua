-- replay: a request that arrives twice gets its first answer. One key for each lane of a caller holds
-- '<request id> <answer>' and outlives any retry loop; a lane carries one request at a time.
local function replay(key, request)
  local saved = redis.call('GET', key)
  if saved and string.sub(saved, 1, #request + 1) == request .. ' ' then
    return string.sub(saved, #request + 2)
  end
  return nil
end

local function remember(key, request, answer)
  redis.call('SET', key, request .. ' ' .. answer, 'EX', 300)
end
