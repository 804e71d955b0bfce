-- count: add to a counter of meta, at the end of a script. A damaged counter begins anew: else the script would fail on
-- every try.
local function count(meta, name, more)
  local answer = redis.pcall('HINCRBY', meta, name, more)
  if type(answer) == 'table' then
    redis.call('HSET', meta, name, string.format('%.0f', more))
  end
end
