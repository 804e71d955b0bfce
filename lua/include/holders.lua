-- holders: read a batch of (id, token) claims from ARGV, each `width` wide, starting at `first`, and look at the
-- records. Returns ids, records, and one letter each: '' still held by that token, f fenced, m missing.
local function holders(jobs, first, width)
  local ids, tokens = {}, {}
  for i = first, #ARGV, width do
    ids[#ids + 1] = ARGV[i]
    tokens[#tokens + 1] = ARGV[i + 1]
  end
  local records = redis.call('HMGET', jobs, unpack(ids))
  local verdicts = {}
  for i = 1, #ids do
    local record = records[i]
    if not record then
      verdicts[i] = 'm'
    elseif string.sub(record, 1, 2) ~= '1p' or string.sub(record, 22, 37) ~= tokens[i] then
      verdicts[i] = 'f'
    else
      verdicts[i] = ''
    end
  end
  return ids, records, verdicts
end
