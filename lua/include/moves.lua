-- moves: what becomes of a job that leaves processing, noted in `out` for `leave`. Needs `record` and `note`.
-- LEAST_KEPT: a cancelled job can be read for at least this long, ms.
local LEAST_KEPT = 600000

-- free_key: the job ended, and its dedup key with it.
local function free_key(out, id, digest)
  if digest then
    note(out, 'freed', digest)
    note(out, 'freed_by', id)
  end
end

-- stays: the job keeps a record, another one where it is given.
local function stays(out, id, record)
  note(out, 'staying', id)
  if record then
    note(out, 'written', id, record)
  end
end

-- leave_body: the job is over, and its body goes, where that lies apart.
local function leave_body(out, id, record)
  if apart(record) then
    note(out, 'bodies', id)
  end
end

-- end_well: the job is done. It leaves a tombstone for its `keep` time, or nothing.
local function end_well(out, id, record, now_ms)
  record = renewed(record)
  local digest, keep = fields(record)
  free_key(out, id, digest)
  leave_body(out, id, record)
  if keep and keep > 0 then
    stays(out, id, tombstone(record, 'd'))
    note(out, 'done', now_ms + keep, id)
  else
    note(out, 'gone', id)
  end
end

-- end_cancelled: the job ran when it was asked to cancel it, and will not run again. It leaves a tombstone, as one that
-- was cancelled before it started, and its key is free at once.
local function end_cancelled(out, id, record, now_ms)
  record = renewed(record)
  local digest, keep = fields(record)
  if digest then
    note(out, 'forced', digest)
    note(out, 'forced_by', id)
  end
  leave_body(out, id, record)
  stays(out, id, tombstone(record, 'c'))
  note(out, 'done', now_ms + math.max(keep or 0, LEAST_KEPT), id)
end

-- end_dead: the job will not run again by itself. failures: lines of JSON, the last of which says why.
local function end_dead(out, id, record, failures, now_ms)
  record = renewed(record)
  stays(out, id, '2x' .. string.sub(record, 3, 49) .. with_failures(record, failures))
  note(out, 'dead', now_ms, id)
  free_key(out, id, (fields(record)))
end

-- go_back: the job is on the wheel again, due at `fire` (ms, and as 15 digits), in the bucket of that day. uncounted: 1
-- when its attempt does not count, else 0. failures: nil leaves those that it has.
local function go_back(out, id, record, uncounted, fire, text, failures, bucket, day)
  record = renewed(record)
  local attempt = math.max(0, tonumber(string.sub(record, 3, 6)) - uncounted)
  stays(out, id, '2s' .. string.format('%04d', attempt) .. text .. string.sub(record, 22, 49)
    .. (failures and with_failures(record, failures) or string.sub(record, 50)))
  out.wheel = out.wheel or {}
  if not out.wheel[bucket] then
    note(out, 'days', day, day)
  end
  note(out.wheel, bucket, fire, id)
  if not out.soonest or fire < out.soonest then
    out.soonest = fire
  end
end
