-- holders: who holds the jobs of a batch.
-- verdict: nil when a job is held by this token, f when it is not, m when there is no record of it.
local function verdict(record, token)
  if not record then
    return 'm'
  end
  local version, state = string.byte(record, 1, 2)
  if state ~= 112 or version ~= 50 and version ~= 49 or string.sub(record, 22, 37) ~= token then
    return 'f'
  end
  return nil
end

-- claims: read (id, token) pairs from ARGV, each `width` wide, starting at `first`. Returns ids and tokens.
local function claims(first, width)
  local ids, tokens = {}, {}
  for i = first, #ARGV, width do
    ids[#ids + 1] = ARGV[i]
    tokens[#tokens + 1] = ARGV[i + 1]
  end
  return ids, tokens
end
