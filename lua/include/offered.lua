-- offered: jobs that another worker was not able to run, offered to those that know their tasks. Such a job lies on the
-- wheel for a later time, for whoever comes; `offered` says `id fire token`: by which fire time and token it was put
-- off, and until when. A member that says something else than the record is void: the job was taken, moved or ended.
-- Void notes hide none behind them: after a page with void ones comes a next one, ever larger, so many at the most.
local NOTE_PAGES = 12

-- take_offered: claim what is offered, as far as it lies in the bucket at hand and there is room. Each job gets the
-- fire time back that it had. Returns id, record, id, record, ..., how many jobs these are, how many bytes were read,
-- whether there may be more although there is room, and whether a body lies apart. Needs `slices` and `taken`.
-- Example: `a 001900000000000 1900000000000500` with score 1900000060000 is job a, due at ...000000, which lies on the
-- wheel for a minute later.
local function take_offered(jobs, processing, bucket, offered, limit, start, now_ms, deadline, token_text, worker)
  local changes, taken, used, more, large = {}, 0, 0, false, false
  local seen = {}
  for n = 1, NOTE_PAGES do
    local page = math.min(1000, limit - taken + 2 ^ n)
    local notes = redis.pcall('ZRANGE', offered, 0, page - 1, 'WITHSCORES')
    if notes.err then
      return changes, taken, used, false, large
    end
    more = #notes == 2 * page
    local ids, members, fires, tokens, untils = {}, {}, {}, {}, {}
    local void, leases, records_new, off = {}, {}, {}, {}
    for i = 1, #notes, 2 do
      local id, fire, token = string.match(notes[i], '^(%S+) (%d+) (%d+)$')
      if id and #fire == 15 and #token == 16 then
        local n = #ids + 1
        ids[n], members[n], fires[n], tokens[n], untils[n] = id, notes[i], fire, token, tonumber(notes[i + 1])
      else
        void[#void + 1] = notes[i]
      end
    end
    local named, records, bytes, apart_too, _ = #ids, {}, 0, false, nil
    if named > 0 then
      records, _, bytes, apart_too = read_within(jobs, ids, BUDGET - used, apart)
      used, large = used + bytes, large or apart_too
    end
    for i = 1, #ids do
      local id, record = ids[i], records[i]
      if not record or not can_be_due(record) or string.sub(record, 22, 37) ~= tokens[i]
        or tonumber(string.sub(record, 7, 21)) ~= untils[i] or untils[i] <= now_ms or tonumber(fires[i]) > now_ms
        or seen[id] then
        void[#void + 1] = members[i]
      elseif taken < limit and untils[i] >= start and untils[i] < start + 86400000 then
        seen[id] = true
        taken = taken + 1
        record = taken_record(record, fires[i], token_text, worker)
        leases[#leases + 1] = deadline
        leases[#leases + 1] = id
        records_new[#records_new + 1] = id
        records_new[#records_new + 1] = record
        changes[#changes + 1] = id
        changes[#changes + 1] = record
        void[#void + 1] = members[i]
        off[#off + 1] = id
      end
    end
    if #off > 0 then
      redis.call('ZADD', processing, unpack(leases))
      redis.call('HSET', jobs, unpack(records_new))
      redis.call('ZREM', bucket, unpack(off))
    end
    if #void > 0 then
      redis.call('ZREM', offered, unpack(void))
    end
    -- A page of which nothing went holds only what cannot be taken now.
    local cut = #ids < named or used >= BUDGET
    more = (more or cut) and #void > 0 and taken < limit
    if not more or cut then
      break
    end
  end
  return changes, taken, used, more, large
end
