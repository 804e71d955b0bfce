-- keeps: whether a record keeps a dedup key from other jobs: its job lives and carries that key. A record that this
-- version cannot read keeps the key. A job that was deleted, and enqueued again without the key, does not keep it.
local function keeps(record, digest)
  return record and string.find(record, '^.[spw]') and (not readable(record) or fields(record) == digest)
end
