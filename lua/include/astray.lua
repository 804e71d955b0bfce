-- astray: the members of a bucket whose place or score contradicts their record. The record is right: what belongs here
-- gets its fire time for a score; what a script that was cut short, or a damaged score, left here goes where its record
-- says. A job of another day is set aside in the dead set, for a person to redrive or `repair` to move.
-- start: first ms of the bucket's day. deadline: until when one that is held by a worker is believed to be held, ms.
local function astray(meta, bucket, dead, processing, start, ids, records, now_ms, deadline)
  local stay, aside, held, off, orphans = {}, {}, {}, {}, 0
  for i = 1, #ids do
    local id, record = ids[i], records[i]
    local state = record and readable(record) and string.sub(record, 2, 2) or 'x'
    local fire = state == 's' and tonumber(string.sub(record, 7, 21))
    if fire and fire >= start and fire < start + 86400000 then
      stay[#stay + 1] = fire
      stay[#stay + 1] = id
    else
      off[#off + 1] = id
      if not record then
        orphans = orphans + 1
      elseif state == 'p' then
        held[#held + 1] = deadline
        held[#held + 1] = id
      elseif state == 's' or state == 'x' then
        aside[#aside + 1] = now_ms
        aside[#aside + 1] = id
      end
    end
  end
  if #stay > 0 then
    redis.call('ZADD', bucket, unpack(stay))
  end
  if #aside > 0 then
    redis.call('ZADD', dead, 'NX', unpack(aside))
  end
  if #held > 0 then
    redis.call('ZADD', processing, 'NX', unpack(held))
  end
  if #off > 0 then
    redis.call('ZREM', bucket, unpack(off))
  end
  if orphans > 0 then
    count(meta, 'orphans', orphans)
  end
end
