-- record: the text header of a job, read by position (zwheel/record.py has the same table).
--  1      version '1'           22-37  token, µs, 16 digits
--  2      state s p d x c       38-45  worker, 8 characters, blank before the first claim
--  3-6    attempt               46-49  max attempts
--  7-21   fire time, ms         50-51  flags in hex: 1 dedup digest, 2 keep, 4 failures
--  52-    [32 digest] [10 keep, ms] [5 length, failures] task '\n' body
-- readable: whether this version knows the record's version and every flag in it, and every number is one; a token is
-- a time before the year 2255. No script may fail on a record that another program damaged: it would fail again on
-- every try.
local HEADER = '^1%l%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d[0-8]%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d........%d%d%d%d0[0-7]'
-- DUE: the same of a job that is scheduled.
local DUE = '^1s%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d[0-8]%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d........%d%d%d%d0[0-7]'

local function readable(record)
  return string.find(record, HEADER) ~= nil
end

-- counted: a field of so many digits as a number; one that is damaged counts for nothing.
local function counted(text)
  return string.find(text, '^%d+$') and tonumber(text) or 0
end

-- fields: what the flags announce. Returns digest or nil, keep in ms or nil, failures or '',
-- and where the failures' field begins and where the task's name begins.
local function fields(record)
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
  local before = at
  if flags >= 4 then
    local length = counted(string.sub(record, at, at + 4))
    failures = string.sub(record, at + 5, at + 4 + length)
    at = at + 5 + length
  end
  return digest, keep, failures, before, at
end

-- with_failures: the part of a record from its flags on, with its failures replaced.
local function with_failures(record, failures)
  local flags = string.byte(record, 51) - 48
  local _, _, _, before, task = fields(record)
  if flags < 4 then
    flags = flags + 4
  end
  return '0' .. flags .. string.sub(record, 52, before - 1) .. string.format('%05d', #failures) .. failures
    .. string.sub(record, task)
end

-- tombstone: what stays of an ended job: everything but its body.
local function tombstone(record, state)
  local _, _, _, _, task = fields(record)
  local line = string.find(record, '\n', task, true) or #record
  return '1' .. state .. string.sub(record, 3, line)
end
