"""Scripts with one fault each. A simulator that does not find them proves nothing."""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutants.fault import Fault

WRITERS = (
    "enqueue",
    "claim",
    "settle",
    "offer",
    "extend",
    "reap",
    "cancel",
    "reschedule",
    "redrive",
    "advance",
    "define",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant(Fault):
    """A fault, and by what it is to be known."""

    promises: tuple[str, ...]
    """One of these the answers and snapshots must say is broken: a number of lua/README.md, or words."""
    mode: str = "judge"
    """judge: no model beside it; damage: also with damaged keys; clock: nothing but jumps of the clock."""

    def known_by(self, error: str) -> bool:
        """Whether a failure is one that this change must cause."""
        number, _, _ = error.partition(":")
        return number in self.promises or any(words in error for words in self.promises if " " in words)


_TOKEN = " or string.sub(record, 22, 37) ~= token"
_OTHER = "local refusal = verdict(records[i], token)"
MUTANTS = (
    Mutant("settle does not look at the token", "include/holders.lua", _TOKEN, "", ("settle",), promises=("I5",)),
    Mutant("what goes back does not look at the token", "settle.lua", _OTHER, _OTHER + " == 'm' and 'm' or nil", promises=("I5",)),
    Mutant("extend does not look at the token", "include/holders.lua", _TOKEN, "", ("extend",), promises=("I5",)),
    Mutant("settle takes back what another holds", "include/holders.lua", "state ~= 112 or version ~= 50 and version ~= 49" + _TOKEN, "false", ("settle",), promises=("I5",)),
    Mutant("a jump that is told is not noted", "include/outage.lua", "if not by then", "if true then", ("reap",), promises=("I26",), mode="clock"),
    Mutant("reap believes a clock in doubt", "reap.lua", "* 3 > lease * 1000 then", "* 3 > lease * 1e12 then", promises=("I26",)),
    Mutant("reap does not ask whether the clock jumped", "reap.lua", "ARGV[8] ~= '' and ARGV[8] ~= jumps or ", "", promises=("I26",), mode="clock"),
    Mutant("all is decided by the last stamp", "include/clock.lua", "return now, math.floor(floor) + 1", "return math.floor(floor) + 1, math.floor(floor) + 1", WRITERS, promises=("the clock",)),
    Mutant("reap takes a lease that has not ended", "reap.lua", "ZRANGE', processing, '-inf', now_ms", "ZRANGE', processing, '-inf', now_ms + 25000", promises=("I4",)),
    Mutant("reap counts one attempt too many", "reap.lua", "if attempt >= tonumber", "if attempt > tonumber", promises=("I8",)),
    Mutant("enqueue forgets the index", "enqueue.lua", "redis.call('ZADD', days, unpack(index))", "", promises=("I10",)),
    Mutant("claim fires a little early", "claim.lua", "\nlocal now_ms = math.floor(now / 1000)\n", "\nlocal now_ms = math.floor(now / 1000) + 2000\n", promises=("I3",)),
    Mutant("claim is ahead of time in any queue", "claim.lua", "stored.precise and math.min", "math.min", promises=("I3",)),
    Mutant("claim leaves jobs in the bucket", "claim.lua", "redis.call('ZREM', bucket, unpack(ids))", "local _ = bucket", promises=("I4", "I9")),
    Mutant("stamps follow the server back", "include/clock.lua", "if floor and floor >= now and floor < 9e15 then", "if false then", WRITERS, promises=("I6", "I14", "I2")),
    Mutant("enqueue takes a key that is held", "enqueue.lua", "(holders[d] or taken[digest])", "taken[digest]", promises=("I11",)),
    Mutant("enqueue forgets a window", "enqueue.lua", "not (ends[i] and tonumber(ends[i]) > now_ms)", "true", promises=("I11",)),
    Mutant("redrive takes a key that is held", "redrive.lua", "holders[d] and holders[d] ~= id", "false", promises=("I11",)),
    Mutant("settle keeps the key", "include/leave.lua", "release_dedup(keys.dedup, keys.expiry, out.freed, out.freed_by, now_ms, false)", "", ("settle",), promises=("I11",)),
    Mutant("prune frees living keys", "prune.lua", "if not keeps(records[i], digests[i]) then", "if true then", promises=("I11",)),
    Mutant("cancel leaves the job on the wheel", "cancel.lua", "redis.call('ZREM', bucket, unpack(off))", "", promises=("I9", "I12")),
    Mutant("cancel takes running jobs", "cancel.lua", "elseif state == 'p' then", "elseif false then", promises=("I12",)),
    Mutant("reschedule leaves the old place", "reschedule.lua", "redis.call('ZREM', from, id)", "", promises=("I9",)),
    Mutant("what goes back leaves its lease", "include/leave.lua", "for i = 1, #staying do", "for i = 1, 0 do", ("settle",), promises=("I9",)),
    Mutant("release counts the attempt", "settle.lua", "letter == 'b' and 1 or 0", "0", promises=("I8",)),
    Mutant("an offer counts the attempt", "offer.lua", "go_back(out, id, record, 1, ends", "go_back(out, id, record, 0, ends", promises=("I8",)),
    Mutant("what is offered lies in two places", "include/offered.lua", "redis.call('HSET', jobs, unpack(records_new))\n      redis.call('ZREM', bucket, unpack(off))", "redis.call('HSET', jobs, unpack(records_new))", ("claim",), promises=("I9", "I4")),
    Mutant("claim forgets what it answered", "claim.lua", "remember(replay_key, request, token_text", "local _ = (token_text", promises=("a repeated claim",)),
    Mutant("enqueue forgets what it answered", "enqueue.lua", "remember(replay_key, request, answer)", "", promises=("a repeated enqueue",)),
    Mutant("enqueue forgets that it refused", "enqueue.lua", "remember(replay_key, request, '!full ' .. digits(cap))", "", promises=("its caller was told full", "I2")),
    Mutant("enqueue forgets a chunk", "enqueue.lua", "redis.call('SET', chunk, answer, 'EX', CHUNK_S)", "", promises=("K-03",)),
    Mutant("claim works while paused", "claim.lua", "if stored.paused then", "if false then", promises=("I18",)),
    Mutant("an ended job gives way unasked", "enqueue.lua", "ways[i] or 'c',", "ways[i] or 'cdx',", promises=("I13",)),
    Mutant("a living job gives way", "enqueue.lua", "['!'] = 'cdx'", "['!'] = 'cdxsp'", promises=("I13",)),
    Mutant("a queue over its cap takes more", "enqueue.lua", "living + created > cap", "living > cap", promises=("over the cap",)),
    Mutant("settle trims a job too many", "include/trim.lua", "ZCARD', dead) - max", "ZCARD', dead) - max + 1", ("settle",), promises=("I1", "I2", "I13")),
    Mutant("two advance one record", "advance.lua", "or string.sub(record, 3, 18) ~= stamps[n] then", "then", promises=("I14",)),
    Mutant("a paused schedule fires", "advance.lua", "string.sub(record, 1, 2) ~= '1a'", "string.sub(record, 1, 1) ~= '1'", promises=("I14",)),
    Mutant("an occurrence overlaps", "advance.lua", "if state == 's' or state == 'p' then", "if state == 's' then", promises=("I14",)),
    Mutant("what is taken back stays on the wheel", "define.lua", "redis.call('ZREM', keys[bucket], unpack(off))", "", promises=("I9", "I2")),
    Mutant("who held a job that was set aside is not fenced", "repair.lua", "tonumber(string.sub(record, 22, 37)) + 1)", "tonumber(string.sub(record, 22, 37)))", promises=("I5", "I26"), mode="damage"),
    Mutant("a token comes twice", "include/taken.lua", "if last >= token then", "if false then", ("claim",), promises=("I6",), mode="damage"),
)  # fmt: skip
