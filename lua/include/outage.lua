-- outage: the evidence that no worker could renew its leases for a while, so that one lease of grace comes before
-- anything is taken back. That no worker was in contact is no evidence: they may all be dead.
-- outage: whether this is another process of the server than the last time, or a replica that was promoted. `server`
-- of meta is the run id that was seen last; a server that does not tell its own, as fakeredis or one whose rights lack
-- INFO, counts as the same for ever.
local function outage(meta, seen)
  local info = redis.pcall('INFO', 'server')
  local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
  if not run or run == seen then
    return false
  end
  redis.call('HSET', meta, 'server', run)
  return seen ~= false
end

-- jumped: note a jump of the server's clock that the caller saw by its own, in ms; nil: it saw none. Several workers
-- see the same jump: one in the same direction as the last, within a minute of it, is counted as that one. Returns
-- whether it is a new one, and whether it is one ahead, by which leases of living workers seem to end: each caller has
-- only just seen it, so others may have to.
local function jumped(meta, now, stamp, by)
  if not by then
    return false, false
  end
  local stored = read_meta(meta, 'jump', 'jumps')
  local at, before = string.match(stored.jump or '', '^(%d+) (-?%d+)')
  if at and math.abs(now - tonumber(at)) < 60000000 and (tonumber(before) > 0) == (by > 0) then
    return false, by > 0
  end
  redis.call('HSET', meta, 'jumps', string.format('%.0f', number(stored.jumps, 0) + 1), 'jump',
    string.format('%.0f %.0f %.0f', now, by, stamp), 'leased', string.format('%.0f', math.floor(now / 1000)))
  return true, by > 0
end

-- forget: give up the longest lease in use when it was not used for two such leases. Returns the one to reckon with.
local function forget(meta, now_ms, lease, known, stored, seen)
  local since = number(seen, 0)
  if stored and known > lease and (since > now_ms or now_ms - since > 2 * known) then
    redis.call('HSET', meta, 'lease', string.format('%.0f', since > now_ms and known or lease), 'leased',
      string.format('%.0f', now_ms))
    return since > now_ms and known or lease
  end
  return known
end
