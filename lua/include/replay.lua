-- replay: a request that arrives twice gets its first answer. One key for each lane of a caller holds
-- '<request id> <answer>' and outlives any retry loop; a lane carries one request at a time, and their numbers rise.
local function replay(key, request)
  local saved = redis.call('GET', key)
  if saved and string.sub(saved, 1, #request + 1) == request .. ' ' then
    return string.sub(saved, #request + 2)
  end
  -- A request that a later one of its lane overtook was answered long ago, or given up: nobody waits for it any more.
  if saved and (tonumber(string.match(saved, '^%d+')) or 0) > (tonumber(request) or math.huge) then
    error('ZWLATE a later request of this lane was carried out')
  end
  return nil
end

local function remember(key, request, answer)
  redis.call('SET', key, request .. ' ' .. answer, 'EX', 300)
end
