#!lua flags=no-writes
-- look: no job moves. How each of some shards of a queue stands, in one answer, for workers that wait.
-- KEYS for each shard: meta, days, bucket, processing, dead
-- ARGV 1 now (tests), then for each shard: the day of its bucket, '' when the asker knows none
-- Returns ok, clock in µs, then for each shard: first day, fire time of the bucket's first job, end of the first and of the
--      last lease, time of the last death, keeper, keeper_end, second, second_end, lease, schema, false where there is
--      none; or one text alone: what of it cannot be read hides no other shard
-- Cost O(shards log n), at most 32 shards.
local clock, told = ARGV[1], {}
if clock == '' then
  local time = redis.call('TIME')
  clock = time[1] .. string.format('%06d', time[2])
end
for i = 1, #KEYS, 5 do
  local meta = redis.pcall('HMGET', KEYS[i], 'keeper', 'keeper_end', 'second', 'second_end', 'lease', 'schema')
  local days = redis.pcall('ZRANGE', KEYS[i + 1], 0, 0)
  local head = ARGV[(i + 9) / 5] == '' and {} or redis.pcall('ZRANGE', KEYS[i + 2], 0, 0, 'WITHSCORES')
  local first = redis.pcall('ZRANGE', KEYS[i + 3], 0, 0, 'WITHSCORES')
  local last = redis.pcall('ZRANGE', KEYS[i + 3], -1, -1, 'WITHSCORES')
  local dead = redis.pcall('ZRANGE', KEYS[i + 4], -1, -1, 'WITHSCORES')
  local wrong = meta.err or days.err or head.err or first.err or last.err or dead.err
  if wrong then
    told[#told + 1] = { wrong }
  else
    told[#told + 1] = { days[1] or false, head[2] or false, first[2] or false, last[2] or false, dead[2] or false,
      meta[1], meta[2], meta[3], meta[4], meta[5], meta[6] }
  end
end
return { 'ok', clock, told }
