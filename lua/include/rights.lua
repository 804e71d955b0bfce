-- rights: refuse a script whole, before its first write, when its Redis user may not run one of the commands that the
-- script is going to need: an error in the middle would keep what was written by then. `key` is a key of the script:
-- Redis 7.0 dies of the question about a SET without one. What a script reads before its first write needs no asking,
-- since nothing has happened by then. A server that cannot be asked (fakeredis) has no users.
-- Five commands cost 0.6 µs on Redis 7.0 and 1.2 µs on Valkey 9.1.
-- How many words a command needs behind its key, where it needs any: Redis 8 refuses to be asked with too few.
local WORDS = {
  ZADD = 2, HSET = 2, HINCRBY = 2, ZRANGE = 2,
  HMGET = 1, HDEL = 1, RPUSH = 1, SET = 1, ZREM = 1, ZMSCORE = 1,
}

local function rights(key, ...)
  local may = redis.acl_check_cmd
  if not may then
    return
  end
  local missing = ''
  for i = 1, select('#', ...) do
    local command = select(i, ...)
    local words, allowed = WORDS[command], nil
    if words == 2 then
      allowed = may(command, key, '0', '0')
    elseif words == 1 then
      allowed = may(command, key, '0')
    else
      allowed = may(command, key)
    end
    if not allowed then
      missing = missing .. ' +' .. string.lower(command)
    end
  end
  if missing ~= '' then
    error({ err = 'NOPERM nothing was changed, since this Redis user lacks' .. missing })
  end
end
