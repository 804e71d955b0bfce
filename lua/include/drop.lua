-- drop: bodies go last, when their jobs are gone or over. It may not fail: nothing could be taken back any more.
local function drop_bodies(bodies, ids)
  if #ids > 0 then
    redis.pcall('HDEL', bodies, unpack(ids))
  end
end
