-- rights: refuse a script whole, before its first write, when its Redis user may not run one of the commands that the
-- script is going to need: an error in the middle would keep what was written by then. `key` is a key of the script:
-- Redis 7.0 dies of the question about a SET without one. What a script reads before its first write needs no asking,
-- since nothing has happened by then. A server that cannot be asked (fakeredis) has no users.
-- Five commands cost 0.6 µs on Redis 7.0 and 1.2 µs on Valkey 9.1.
-- Redis 8 refuses to be asked with too few words, or too many: those that take a key alone are named, and the others,
-- which take two words more, mostly any number, get these.
local function rights(key, ...)
  local may = redis.acl_check_cmd
  if not may then
    return
  end
  local missing = ''
  for i = 1, select('#', ...) do
    local command = select(i, ...)
    local allowed
    if command == 'LLEN' or command == 'EXISTS' or command == 'ZCARD' or command == 'DEL' then
      allowed = may(command, key)
    else
      allowed = may(command, key, '0', '0')
    end
    if not allowed then
      missing = missing .. ' +' .. string.lower(command)
    end
  end
  if missing ~= '' then
    error({ err = 'NOPERM nothing was changed, since this Redis user lacks' .. missing })
  end
end
