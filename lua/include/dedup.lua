-- dedup: give back the keys of jobs that ended. digests and owners are parallel lists.
-- A key with a window keeps its holder's name until the window ends, unless `force` (cancel, purge).
local function release_dedup(dedup, expiry, digests, owners, now_ms, force)
  if #digests == 0 then
    return
  end
  local holders = redis.call('HMGET', dedup, unpack(digests))
  local ends = redis.call('ZMSCORE', expiry, unpack(digests))
  local gone = {}
  for i = 1, #digests do
    if holders[i] == owners[i] and (force or not ends[i] or tonumber(ends[i]) <= now_ms) then
      gone[#gone + 1] = digests[i]
    end
  end
  if #gone > 0 then
    redis.call('HDEL', dedup, unpack(gone))
    redis.call('ZREM', expiry, unpack(gone))
  end
end
