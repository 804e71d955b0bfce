-- record: the text header of a job, read by position (zwheel/record.py has the same table).
--  1      version '2'           22-37  token, µs, 16 digits
--  2      state s p d x c       38-45  worker, 8 characters, blank before the first claim
--  3-6    attempt               46-49  max attempts
--  7-21   fire time, ms         50-51  how many fields follow, in hex
--  52-    each field: letter, length of its value in bytes as 5 digits, value; then task '\n' body
-- Fields: B bytes of the body, which lies in `bodies`; D dedup digest; k keep, ms; f failures, lines of JSON;
-- c when it was asked to cancel it, ms. Who does not know an upper-case letter cannot read the record. A lower-case
-- letter that is not known is copied. B is the first field, and has 7 digits.
-- Version '1', of older records: 50-51 flags in hex (1 D, 2 k, 4 f), 52- [32 D] [10 k] [5 length, f] task '\n' body.
-- The next transition writes it as version 2.
local HEADER =
  '^[12]%l%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d[0-8]%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d........%d%d%d%d%x%x'
-- DUE: the same of a job that is scheduled. PLAIN_DUE: and has no fields, as most have none.
local DUE =
  '^[12]s%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d[0-8]%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d........%d%d%d%d%x%x'
local PLAIN_DUE =
  '^[12]s%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d[0-8]%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d........%d%d%d%d00'
-- UNDERSTOOD: the upper-case letters that this version knows.
local UNDERSTOOD = 'BD'

-- counted: a field of so many digits as a number; one that is damaged counts for nothing.
local function counted(text)
  return string.find(text, '^%d+$') and tonumber(text) or 0
end

-- next_field: the letter of the field that begins there, and its first and last byte of value; nil where none begins.
local function next_field(record, at)
  local letter, length = string.match(record, '^(%a)(%d%d%d%d%d)', at)
  return letter, at + 6, letter and at + 5 + length
end

-- apart: the size of a body that lies in `bodies`; nil for a record that holds its body itself, as most do.
local function apart(record)
  if string.byte(record, 52) ~= 66 or string.byte(record) ~= 50 or string.sub(record, 50, 51) == '00' then
    return nil
  end
  return tonumber(string.match(record, '^B00007(%d%d%d%d%d%d%d)', 52))
end

-- field: one as it is written.
local function field(letter, value)
  return letter .. string.format('%05d', #value) .. value
end

-- understood: whether this version knows every field that must be known, and the fields end within the record.
local function understood(record)
  if string.byte(record) == 49 then
    return string.find(record, '^0[0-7]', 50) ~= nil
  end
  local at = 52
  for _ = 1, tonumber(string.sub(record, 50, 51), 16) do
    local letter, _, last = next_field(record, at)
    if not letter or string.find(letter, '%u') and not string.find(UNDERSTOOD, letter, 1, true) then
      return false
    end
    at = last + 1
  end
  return at <= #record
end

-- readable: whether this version knows the record's version and every field that must be known, and every number is
-- one; a token is a time before the year 2255. No script may fail on a record that another program damaged: it would
-- fail again on every try.
local function readable(record)
  return string.find(record, HEADER) ~= nil and (string.sub(record, 50, 51) == '00' or understood(record))
end

-- can_be_due: whether it is readable and scheduled.
local function can_be_due(record)
  return string.find(record, PLAIN_DUE) or string.find(record, DUE) and understood(record)
end

-- fields_of_1: the same as `fields`, of a record of version 1.
local function fields_of_1(record)
  local flags = string.byte(record, 51) - 48
  local at = 52
  local digest, keep, failures = nil, nil, ''
  if flags % 2 == 1 then
    digest = string.sub(record, at, at + 31)
    at = at + 32
  end
  if flags % 4 >= 2 then
    keep = counted(string.sub(record, at, at + 9))
    at = at + 10
  end
  if flags >= 4 then
    local length = counted(string.sub(record, at, at + 4))
    failures = string.sub(record, at + 5, at + 4 + length)
    at = at + 5 + length
  end
  return digest, keep, failures, at
end

-- fields: what a record carries. Returns digest or nil, keep in ms or nil, failures or '', where the task's name
-- begins, its fields but for the failures, as they are written, and when it was asked to cancel the job, or nil.
local function fields(record)
  if string.byte(record) == 49 then
    return fields_of_1(record)
  end
  local values, others, at = {}, {}, 52
  for _ = 1, tonumber(string.sub(record, 50, 51), 16) or 0 do
    local letter, first, last = next_field(record, at)
    if not letter then
      break
    end
    values[letter] = string.sub(record, first, last)
    if letter ~= 'f' then
      others[#others + 1] = string.sub(record, at, last)
    end
    at = last + 1
  end
  return values.D, values.k and counted(values.k), values.f or '', at, others, values.c
end

-- renewed: a record in the version that is written now.
local function renewed(record)
  if string.byte(record) ~= 49 then
    return record
  elseif string.sub(record, 50, 51) == '00' then
    return '2' .. string.sub(record, 2)
  end
  local digest, keep, failures, task = fields_of_1(record)
  local all = {}
  all[1] = digest and field('D', digest)
  all[#all + 1] = keep and field('k', string.format('%.0f', keep))
  all[#all + 1] = string.byte(record, 51) >= 52 and field('f', failures) or nil
  local count = string.format('%02x', #all)
  return '2' .. string.sub(record, 2, 49) .. count .. table.concat(all) .. string.sub(record, task)
end

-- with_failures: the part of a renewed record from the number of its fields on, with its failures replaced.
local function with_failures(record, failures)
  local _, _, _, task, others = fields(record)
  return string.format('%02x', #others + 1) .. table.concat(others) .. field('f', failures) .. string.sub(record, task)
end

-- asked: whether it was asked to cancel the job.
local function asked(record)
  return string.sub(record, 50, 51) ~= '00' and select(6, fields(record)) ~= nil
end

-- with_asked: a renewed record of a job that it is asked to cancel now.
local function with_asked(record, now_ms)
  local at = apart(record) and 65 or 52
  local count = string.format('%02x', tonumber(string.sub(record, 50, 51), 16) + 1)
  return string.sub(record, 1, 49) .. count .. string.sub(record, 52, at - 1)
    .. field('c', string.format('%.0f', now_ms)) .. string.sub(record, at)
end

-- tombstone: what stays of an ended job, by its renewed record: everything but its body, and the field B.
local function tombstone(record, state)
  local _, _, _, task = fields(record)
  local line = string.find(record, '\n', task, true) or #record
  if apart(record) then
    local count = string.format('%02x', tonumber(string.sub(record, 50, 51), 16) - 1)
    return '2' .. state .. string.sub(record, 3, 49) .. count .. string.sub(record, 65, line)
  end
  return '2' .. state .. string.sub(record, 3, line)
end
