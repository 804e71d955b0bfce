-- replay: a request that arrives twice gets its first answer. One key for each lane of a caller holds
-- '<request id> <answer>' and outlives any retry loop; a lane carries one request at a time, and their numbers rise.
local function replay(key, request)
  local saved = redis.call('GET', key)
  if saved and string.sub(saved, 1, #request + 1) == request .. ' ' then
    -- A WAIT behind a repeat waits for the last write of its own connection: there has to be one.
    redis.call('SET', key, saved, 'EX', 300)
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

-- refused: the answer to a request that was refused before; nil when it was carried out. before: what `replay` gave.
-- A refusal is remembered as '!<word> <detail>', so that what its caller was told stays true. Example: a queue is full.
-- The repeat of an enqueue is refused; then room is made, and the first copy of it, late, arrives.
local function refused(before, now)
  local word, detail = string.match(before, '^!(%l+) (.*)$')
  return word and { word, string.format('%.0f', now), detail ~= '' and detail or nil }
end
