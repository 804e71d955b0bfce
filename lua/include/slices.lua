-- slices: records are read in growing slices, until they come to so many bytes: large bodies do not block the server.
-- read_within: read the records of these ids as far as the budget goes, but always the first one.
-- Returns the records, how many of the ids these are, their bytes, and whether a body lies apart. The ids that were not
-- read are taken off `ids`. apart: of `record`, where bodies that lie apart are read or deleted too: then they count.
-- A slice is no larger than what would fit if all were as large as those before it; one of 64 of the largest bodies
-- that clients send by default is 16 MiB: that much may be read in vain behind small ones.
-- Example: of 100 jobs of 250 KB with a budget of 2 MiB, the first 8 are given, in slices of 2, 6 and 1.
local BUDGET = 2097152
local function read_within(jobs, ids, budget, apart)
  local all, bytes, size, first = #ids, 0, 2, 1
  local records, large = {}, false
  while first <= all do
    local last = math.min(first + size - 1, all)
    local slice = redis.call('HMGET', jobs, unpack(ids, first, last))
    for i = 1, #slice do
      local record, n = slice[i], first + i - 1
      local length = record and #record or 0
      local more = apart and record and string.byte(record, 52) == 66 and apart(record)
      if more then
        length, large = length + more, true
      end
      if n > 1 and bytes + length > budget then
        for left = all, n, -1 do
          ids[left] = nil
        end
        return records, n - 1, bytes, large
      end
      records[n] = record
      bytes = bytes + length
    end
    first = last + 1
    size = math.max(1, math.min(64, 4 * size, math.floor((budget - bytes) * last / (bytes + 1))))
  end
  return records, all, bytes, large
end
