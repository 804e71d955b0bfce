-- holders: who holds the jobs of a batch of claims.
-- claims: read (id, token) pairs from ARGV, each `width` wide, starting at `first`. Returns ids and tokens.
local function claims(first, width)
  local ids, tokens = {}, {}
  for i = first, #ARGV, width do
    ids[#ids + 1] = ARGV[i]
    tokens[#tokens + 1] = ARGV[i + 1]
  end
  return ids, tokens
end

-- verdicts_of: one letter for each of these ids: '' still held by that token, f fenced, m missing.
local function verdicts_of(ids, tokens, records)
  local verdicts = {}
  for i = 1, #ids do
    local record = records[i]
    if not record then
      verdicts[i] = 'm'
    elseif not string.find(record, '^[12]p') or string.sub(record, 22, 37) ~= tokens[i] then
      verdicts[i] = 'f'
    else
      verdicts[i] = ''
    end
  end
  return verdicts
end

-- holders: read a batch of claims, and look at the records. Returns ids, records, and a letter each.
local function holders(jobs, first, width)
  local ids, tokens = claims(first, width)
  local records = redis.call('HMGET', jobs, unpack(ids))
  return ids, records, verdicts_of(ids, tokens, records)
end
