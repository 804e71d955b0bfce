-- taken: the record of a job as the worker that takes it gets it: processing, its attempt counted, due at `fire` (15
-- digits), with a token of its own: `least`, or one more than its last one.
-- Example: the last token is 1900000000000500 and least is 1900000000000400; the new one is 1900000000000501.
local function taken_record(record, fire, least, worker)
  record = renewed(record)
  local token, last = least, string.sub(record, 22, 37)
  if last >= token then
    token = string.format('%016.0f', tonumber(last) + 1)
  end
  local attempt = tonumber(string.sub(record, 3, 6)) + 1
  return '2p' .. string.format('%04d', attempt < 9999 and attempt or 9999) .. fire .. token .. worker
    .. string.sub(record, 46)
end
