-- bodies: a body of more than 1,024 bytes lies in a hash of its own, so that a claim or a retry writes a short record
-- to the append-only file and to the replicas, and not the body again. It is written once, with its job, and goes with
-- it.
local LARGE = 1024

-- split: the part of a new record from the worker's field on, as it is stored, and its body where that lies apart.
-- Example: '        0003' .. '00' .. 'mail.send\n' and 2,000 bytes become '        0003' .. '01' .. 'B000070002000' ..
-- 'mail.send\n', and the 2,000 bytes.
local function split(rest)
  local line = string.find(rest, '\n', 15, true)
  if not line or #rest - line <= LARGE then
    return rest, nil
  end
  local count = tonumber(string.sub(rest, 13, 14), 16) + 1
  local fields = string.format('%02xB00007%07.0f', count, #rest - line)
  return string.sub(rest, 1, 12) .. fields .. string.sub(rest, 15, line), string.sub(rest, line + 1)
end
