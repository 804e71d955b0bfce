"""The faults: each takes one safeguard out of one script, by exact replacement of its text."""

from __future__ import annotations

from dataclasses import dataclass

from .fault import Fault


@dataclass(frozen=True, slots=True)
class Mutant(Fault):
    """A fault, and what notices it."""

    tables: tuple[str, ...] = ()
    """Its script tables: names of transitions."""
    first: str = "checker"
    """The check that notices it soonest: the tables, where nothing in a history can show it."""


def _mutant(name: str, file: str, old: str, new: str, *tables: str, first: str = "checker") -> Mutant:
    own = () if "/" in file else (file.removesuffix(".lua"),)
    return Mutant(name, file, old, new, tables=tables or own, first=first)


_TOKEN = " or string.sub(record, 22, 37) ~= token then"
_WELL = "local letter = verdict(record, ARGV[2 * i + 2])"
_OTHER = "local refusal = verdict(records[i], token)"
_KEPT = "letters[i] = verdict(records[i], tokens[i]) or 'k'"
_FENCED = " if {0} == 'f' and string.sub(records[i], 2, 2) == 'p'{1} then {0} = {2} end"

MUTANTS: tuple[Mutant, ...] = (
    # Tokens.
    _mutant("no script checks the token", "include/holders.lua", _TOKEN, " then", "settle"),
    _mutant("a job ends well without its token", "settle.lua", _WELL, _WELL + _FENCED.format("letter", "", "nil")),
    _mutant("a job is dead without its token", "settle.lua", _OTHER, _OTHER + _FENCED.format("refusal", " and letter == 'x'", "nil")),
    _mutant("a job goes back without its token", "settle.lua", _OTHER, _OTHER + _FENCED.format("refusal", " and letter ~= 'x'", "nil")),
    _mutant("extend ignores the token", "extend.lua", _KEPT, _KEPT + _FENCED.format("letters[i]", "", "'k'")),
    _mutant("an ended job counts as held", "include/holders.lua", "state ~= 112 or ", "", "settle"),
    _mutant("the token stays", "include/taken.lua", ".. token .. worker\n", ".. last .. worker\n", "claim"),
    _mutant("tokens may repeat", "include/taken.lua", "if last >= token then", "if last > token then", "claim",
            first="tables"),
    _mutant("tokens follow the clock back", "include/clock.lua", "if floor and floor >= now and floor < 9e15 then", "if false then",
            "claim", first="tables"),
    _mutant("all is decided by the last stamp", "include/clock.lua", "return now, math.floor(floor) + 1",
            "return math.floor(floor) + 1, math.floor(floor) + 1", "claim", "reap", "enqueue", first="tables"),
    _mutant("a damaged stamp is believed", "include/clock.lua", "and floor < 9e15 then", "then", "claim", first="tables"),
    _mutant("a step back is not counted", "include/contact.lua", "if last - now > 500000 then", "if false then", "claim", first="tables"),
    # Time.
    _mutant("claim takes what is not due", "claim.lua", "\nlocal now_ms = math.floor(now / 1000)\n",
            "\nlocal now_ms = math.floor(now / 1000) + 1000\n"),
    _mutant("a claim is ahead of time in any queue", "claim.lua", "stored.precise and math.min", "math.min", first="tables"),
    _mutant("a claim reaches as far ahead as it is asked to", "claim.lua", "math.min(number(ARGV[9], 0), FARTHEST)",
            "number(ARGV[9], 0)", first="tables"),
    _mutant("a claim does not say that it is ahead", "claim.lua", "  digits(ahead), unpack", "  '0', unpack", first="tables"),
    _mutant("a delay is cut off", "include/buckets.lua", "math.ceil(now / 1000) + tonumber", "math.floor(now / 1000) + tonumber",
            "enqueue"),
    _mutant("the bucket's day is not checked", "include/buckets.lua", "return fire >= start and fire < start + DAY",
            "return true", "enqueue", "cancel", "reschedule", first="tables"),
    _mutant("the script chooses another named day", "include/buckets.lua", "return numbers[fire - fire % DAY]", "return numbers[fire - fire % DAY] or next(numbers) and 1", "enqueue", "settle", first="tables"),
    # Leases.
    _mutant("reap takes leases that last", "reap.lua", "'ZRANGE', processing, '-inf', now_ms, 'BYSCORE'",
            "'ZRANGE', processing, '-inf', now_ms + 500, 'BYSCORE'"),
    _mutant("no grace after a gap", "reap.lua", "if grace > 0 then", "if false then"),
    _mutant("a restart of the server is not noticed", "include/outage.lua", "return seen ~= false", "return false", "reap"),
    _mutant("a jump ahead opens no grace", "include/outage.lua", "return true, by > 0", "return true, false", "reap"),
    _mutant("grace of a wrong clock is believed", "include/contact.lua", "if ends > now_ms and ends <= now_ms + most then",
            "if ends > now_ms then", "reap", "claim", first="tables"),
    _mutant("a doubtful clock reaps", "reap.lua", "* 3 > lease * 1000 then", "* 3 > lease * 1e12 then", first="tables"),
    _mutant("a reap does not ask whether the clock jumped", "reap.lua", "ARGV[8] ~= '' and ARGV[8] ~= jumps or ", "", first="tables"),
    _mutant("a doubtful clock prunes", "prune.lua", "> 60000000 then", "> 6e16 then", first="tables"),
    _mutant("a lease that was given ahead stays", "reap.lua", "if #wrong > 0 then", "if false then", first="tables"),
    _mutant("a longest lease is kept for ever", "include/outage.lua", "or now_ms - since > 2 * known) then", "or false) then", "reap", first="tables"),
    _mutant("extend renews nothing", "extend.lua", "redis.call('ZADD', processing, unpack(renewed))", "local _ = renewed"),
    _mutant("a lease is not written", "claim.lua", "local deadline = digits(now_ms + lease)", "local deadline = digits(now_ms)"),
    # Attempts.
    _mutant("the attempt never counts", "include/taken.lua", "tonumber(string.sub(record, 3, 6)) + 1\n",
            "tonumber(string.sub(record, 3, 6))\n", "claim"),
    _mutant("crashes have no limit", "reap.lua", "if attempt >= tonumber(string.sub(record, 46, 49)) then", "if false then"),
    _mutant("one crash too many", "reap.lua", "if attempt >= tonumber", "if attempt > tonumber"),
    _mutant("a release counts", "settle.lua", "letter == 'b' and 1 or 0", "0"),
    _mutant("a retry does not count", "settle.lua", "letter == 'b' and 1 or 0", "1"),
    _mutant("failures are lost where none are told", "settle.lua", "failures ~= '' and failures or nil", "failures", first="tables"),
    _mutant("one of a batch goes to a day that is not named", "settle.lua", "if not bucket then\n", "if false then\n", first="tables"),
    _mutant("redrive keeps the attempts", "redrive.lua", "'2s0000' .. fire_text", "'2s' .. string.sub(record, 3, 6) .. fire_text"),
    # The index.
    _mutant("enqueue forgets the index", "enqueue.lua", "redis.call('ZADD', days, unpack(index))", "local _ = index"),
    _mutant("what goes back forgets the index", "include/leave.lua", "redis.call('ZADD', keys.days, unpack(out.days))",
            "local _ = keys", "settle", "reap"),
    _mutant("redrive forgets the index", "redrive.lua", "redis.call('ZADD', days, ARGV[2 + 2 * today], ARGV[2 + 2 * today])", "local _ = days"),
    _mutant("reschedule forgets the index", "reschedule.lua", "redis.call('ZADD', days, ARGV[6 + 2 * to], ARGV[6 + 2 * to])", "local _ = days"),
    _mutant("an emptied day stays in the index", "claim.lua", "redis.call('ZREM', days, first)\n    next_day", "next_day"),
    _mutant("cancel leaves an empty day", "cancel.lua", "redis.call('ZREM', days, day)", "local _ = day"),
    # One place.
    _mutant("claim leaves the job on the wheel", "claim.lua", "redis.call('ZREM', bucket, unpack(ids))", "local _ = bucket"),
    _mutant("nothing leaves processing", "include/leave.lua", "redis.call('ZREM', keys.processing, unpack(off))",
            "local _ = keys", "settle", "reap"),
    _mutant("what keeps its record stays in processing", "include/leave.lua", "for i = 1, #staying do", "for i = 1, 0 do",
            "settle", "reap"),
    _mutant("what is dead is listed nowhere", "include/leave.lua", "redis.call('ZADD', keys.dead, unpack(out.dead))",
            "local _ = keys", "settle", "reap"),
    _mutant("the dead set grows for ever", "settle.lua", "if out.dead then", "if false then", first="tables"),
    _mutant("what goes back is in no bucket", "include/leave.lua", "redis.call('ZADD', bucket, unpack(members))",
            "local _ = bucket, members", "settle", "reap"),
    _mutant("what goes back calls nobody", "include/moves.lua", "out.soonest = fire",
            "out.soonest = 9e15", "settle", "reap", first="tables"),
    _mutant("cancel leaves it on the wheel", "cancel.lua", "redis.call('ZREM', bucket, unpack(off))", "local _ = bucket"),
    _mutant("reschedule leaves it at its old day", "reschedule.lua", "redis.call('ZREM', from, id)", "local _ = from"),
    _mutant("redrive leaves it dead", "redrive.lua", "redis.call('ZREM', dead, unpack(off))", "local _ = dead"),
    _mutant("purge leaves the record", "purge.lua", "redis.call('HDEL', jobs, unpack(rest))", "local _ = jobs"),
    _mutant("trimming leaves the record", "include/trim.lua", "redis.call('HDEL', jobs, unpack(old))", "local _ = jobs", "settle"),
    _mutant("the record of a living job goes with its place", "include/rests.lua", "if state and not string.find(states, state, 1, true) then", "if false then", "prune", "purge", "settle", first="tables"),
    _mutant("a living job hides what is behind it", "include/trim.lua", "put_behind(dead, stay, now_ms)", "local _ = stay", "prune",
            first="tables"),
    _mutant("a living job among the ended hides what is behind it", "prune.lua", "put_behind(done, stay, now_ms + LOOK_AGAIN)",
            "local _ = stay", first="tables"),
    _mutant("trimming does not count", "include/trim.lua", "count(meta, 'trimmed', #old)", "local _ = meta", "settle", first="tables"),
    _mutant("the body stays with the tombstone", "include/record.lua", "string.sub(record, 3, line)", "string.sub(record, 3)", "settle", first="tables"),
    _mutant("a job that ended well has no fields", "settle.lua", "if not letter and string.sub(record, 50, 51) == '00' then", "if not letter then"),
    _mutant("the tombstone is lost", "include/leave.lua", "redis.call('ZADD', keys.done, unpack(out.done))", "local _ = keys", "settle"),
    # Repeats.
    _mutant("a repeat is done again", "include/replay.lua", "if saved and string.sub(saved, 1, #request + 1) == request .. ' ' then",
            "if false then", "settle", "enqueue"),
    _mutant("a repeat writes nothing", "include/replay.lua", "    redis.call('SET', key, saved, 'EX', 300)\n", "", "replay", first="tables"),
    _mutant("any request is a repeat", "include/replay.lua", "if saved and string.sub(saved, 1, #request + 1) == request .. ' ' then",
            "if saved then", "settle"),
    _mutant("enqueue writes over an id", "enqueue.lua", "local record = seen[id] or here[i]", "local record = seen[id]"),
    _mutant("a living job gives way", "enqueue.lua", "{ ['!'] = 'cdx', ", "{ ['!'] = 'cdxsp', "),
    _mutant("an ended job gives way unasked", "enqueue.lua", "string.find(ways[i] or 'c',", "string.find(ways[i] or 'cdx',"),
    _mutant("a cancelled occurrence comes back", "enqueue.lua", "['='] = '' }", "['='] = 'c' }", first="tables"),
    _mutant("a damaged job gives way", "enqueue.lua", "record and readable(record) and string.find", "record and string.find", first="tables"),
    _mutant("who gave way is still among the ended", "enqueue.lua", "redis.call('ZREM', KEYS[10], unpack(old))", "local _ = old", first="tables"),
    _mutant("who gave way is still among the dead", "enqueue.lua", "redis.call('ZREM', KEYS[9], unpack(old))", "local _ = old", first="tables"),
    _mutant("the token falls where a job gave way", "enqueue.lua", "if last >= own then", "if false then", first="tables"),
    _mutant("the window of who gave way refuses its successor", "enqueue.lua", "elseif holder and not (over and holder == id) then", "elseif holder then", first="tables"),
    # Dedup.
    _mutant("a held key is taken", "enqueue.lua", "(holders[d] or taken[digest])", "taken[digest]"),
    _mutant("a pair within one batch", "enqueue.lua", "(holders[d] or taken[digest])", "holders[d]", first="tables"),
    _mutant("a key is never given back", "include/dedup.lua", "if #gone > 0 then", "if false then", "settle"),
    _mutant("a window ends with its job", "include/dedup.lua", "(force or not ends[i] or tonumber(ends[i]) <= now_ms)", "true", "settle", first="tables"),
    _mutant("another's key is given back", "include/dedup.lua", "holders[i] == owners[i] and", "", "settle", first="tables"),
    _mutant("a living job's key is pruned", "prune.lua", "if not keeps(records[i], digests[i]) then", "if true then", first="tables"),
    _mutant("redrive takes a held key", "redrive.lua", "or holders[d] and holders[d] ~= id", "", first="tables"),
    # Control.
    _mutant("a running job is cancelled", "cancel.lua", "elseif state == 'p' then\n    letters[i] = 'r'", "elseif false then\n    letters[i] = 'r'", first="tables"),
    _mutant("an ended job is cancelled", "cancel.lua", "elseif state ~= 's' then", "elseif state == 'p' then"),
    _mutant("an ended job is rescheduled", "reschedule.lua", "elseif state ~= 's' then", "elseif false then"),
    _mutant("redrive takes jobs that are not dead", "redrive.lua", "if not listed[i] or not record or seen[id] then",
            "if not record or seen[id] then"),
    _mutant("a paused queue is claimed", "claim.lua", "if stored.paused then\n  return { 'paused'", "if false then\n  return { 'paused'", first="tables"),
    _mutant("the cap is not kept", "enqueue.lua", "if living + created > cap then", "if false then", first="tables"),
    # Schedules.
    _mutant("two advance the same record", "advance.lua", "or string.sub(record, 3, 18) ~= stamps[n] then", "then"),
    _mutant("a paused schedule fires", "advance.lua", "string.sub(record, 1, 2) ~= '1a'", "string.sub(record, 1, 1) ~= '1'"),
    _mutant("an occurrence that exists is written over", "include/place.lua", "if here or new.seen[id] then", "if new.seen[id] then", "advance"),
    _mutant("an occurrence overlaps", "advance.lua", "if state == 's' or state == 'p' then", "if state == 's' then", first="tables"),
    _mutant("the cursor stays", "advance.lua", "redis.call('HSET', schedules, unpack(writes))", "local _ = schedules"),
    _mutant("an occurrence is not on the wheel", "include/place.lua", "redis.call('ZADD', keys[bucket], unpack(pairs_of))", "local _ = keys", "advance", "define"),
    _mutant("an occurrence's day is not in the index", "include/place.lua", "redis.call('ZADD', days, unpack(index))", "local _ = days", "advance", "define"),
    _mutant("nobody looks again", "advance.lua", "redis.call('ZADD', due, unpack(looks))", "local _ = due", first="tables"),
    _mutant("a finished schedule stays due", "advance.lua", "redis.call('ZREM', due, unpack(rests))", "local _ = due", first="tables"),
    _mutant("an edit asks for no stamp", "define.lua", "if record and string.sub(record, 3, 18) ~= expected or not record and expected ~= '' then", "if false then", first="tables"),
    _mutant("an edit takes back what runs", "define.lua", "local there = found == 's0000' .. ARGV[b + 1]", "local there = found", first="tables"),
    _mutant("an occurrence is given back by an old token", "define.lua", " and string.sub(here[id], 22, 37) == ARGV[b + 1]", "", first="tables"),
    _mutant("an occurrence is given back before it is late", "define.lua", "if there and math.floor(now / 1000) <= tonumber(ARGV[b + 3]) then", "if false then", first="tables"),
    _mutant("an edit does not say what has started", "define.lua", "if #started > 0 then", "if false then", first="tables"),
    _mutant("what is taken back stays on the wheel", "define.lua", "redis.call('ZREM', keys[bucket], unpack(off))", "local _ = keys"),
    _mutant("what is taken back keeps its record", "define.lua", "redis.call('HDEL', jobs, unpack(dropped))", "local _ = jobs"),
    _mutant("a day that an edit emptied stays", "define.lua", "if days_of[bucket] ~= '' and not added.members[bucket] and redis.call('EXISTS', keys[bucket]) == 0 then", "if false then", first="tables"),
    _mutant("a deleted schedule stays due", "define.lua", "redis.call('ZREM', due, name)\nelse", "else", first="tables"),
    # Waiting.
    _mutant("nobody is woken", "include/wake.lua", "redis.call('RPUSH', list, '1')", "local _ = list", "enqueue", first="tables"),
    _mutant("the timekeeper keeps its role when full", "include/roles.lua", "local keeps, seconds = roles.keeper == worker, ", "local keeps, seconds = false, ", "claim", first="tables"),
    _mutant("the second keeps its role when full", "include/roles.lua", "roles.second == worker\n  if keeps", "false\n  if keeps", "claim", first="tables"),
    _mutant("a role that is laid down calls nobody", "include/roles.lua", "if had or alone then", "if alone then", "claim", first="tables"),
    _mutant("a full claim hides the next job", "include/roles.lua", "if had or alone then", "if had then", "claim", first="tables"),
    _mutant("who steps down calls nobody", "step_down.lua", "push_token(KEYS[3])", "local _ = KEYS[3]", first="tables"),
    _mutant("what is offered calls nobody", "offer.lua", "push_token(KEYS[k + 1])", "local _ = k", first="tables"),
    _mutant("a void offer is believed", "include/offered.lua", "string.sub(record, 22, 37) ~= tokens[i]", "false", "claim", "offer", first="tables"),
    _mutant("two keep time", "include/roles.lua", "if roles.keeper == worker or not lasts(roles.keeper_end, now_ms) or number(roles.keeper_at, wanted + 1) > wanted then", "if true then", "claim", first="tables"),
    _mutant("a role lasts for ever", "include/wake.lua", "return at > now_ms and at <= now_ms + LONGEST_ROLE", "return at > now_ms", "claim", first="tables"),
    # Taking back.
    _mutant("who held a job that was set aside is not fenced", "repair.lua", "tonumber(string.sub(record, 22, 37)) + 1)", "tonumber(string.sub(record, 22, 37)))", first="tables"),
    _mutant("what was set aside stays dead", "repair.lua", "if mend or places then\n  for z", "if mend then\n  for z", first="tables"),
    # Shards.
    _mutant("a queue that was cut takes jobs where nobody looks", "enqueue.lua", "if stored.shards then", "if false then", first="tables"),
    _mutant("a queue that was cut takes schedules where nobody looks", "define.lua", "if stored.shards then", "if false then", first="tables"),
    # Large bodies.
    _mutant("a done job leaves its body", "include/moves.lua", "if apart(record) then", "if false then", "bodies"),
    _mutant("a tombstone asks for a body", "include/record.lua", "if apart(record) then", "if false then", "bodies"),
    _mutant("a cancelled job leaves its body", "cancel.lua", "drop_bodies(bodies, large)", "", "bodies"),
    _mutant("who gave way leaves its body", "enqueue.lua", "drop_bodies(bodies, bare)", "", "bodies", first="tables"),
    _mutant("a purged job leaves its body", "purge.lua", "drop_bodies(bodies, rest)", "", "bodies", first="tables"),
    _mutant("a trimmed job leaves its body", "include/trim.lua", "drop_bodies(bodies, old)", "", "bodies", first="tables"),
    _mutant("an occurrence that is taken back leaves its body", "define.lua", "drop_bodies(bodies, bare)", "", "bodies", first="tables"),
    _mutant("a claim is without its bodies", "include/join.lua", "not found.err and found[n] or ''", "''", "bodies", first="tables"),
    _mutant("a claim of what was offered is without its bodies", "include/offered.lua", "large or apart_too", "large", "bodies", first="tables"),
    _mutant("bodies do not count for a claim's bytes", "include/slices.lua", "length, large = length + more, true", "large = true", "bodies", first="tables"),
    _mutant("a large body is written with its record again", "include/bodies.lua", "local LARGE = 1024", "local LARGE = 1024000", "bodies", first="tables"),
    _mutant("a body is looked for after another type took its key", "include/join.lua", "redis.pcall('HMGET'", "redis.call('HMGET'", "bodies", first="tables"),
    _mutant("a body that nobody needs is not found", "repair.lua", "return there > 0 and 'b' or nil", "return nil", "bodies", first="tables"),
    # The record.
    _mutant("a field that must be understood is passed over", "include/record.lua", "string.find(letter, '%u') and not string.find(UNDERSTOOD, letter, 1, true)", "false", "claim", first="tables"),
    _mutant("an unknown flag is passed over", "include/record.lua", "string.find(record, '^0[0-7]', 50) ~= nil", "true", "claim", first="tables"),
    _mutant("new failures take the other fields away", "include/record.lua", "others[#others + 1] = string.sub(record, at, last)", "local _ = others", "settle", first="tables"),
    _mutant("unreadable records are dropped", "include/astray.lua", "redis.call('ZADD', dead, 'NX', unpack(aside))", "local _ = dead", "claim", first="tables"),
)  # fmt: skip
