"""Scripts with one fault each. A simulator that does not find them proves nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from zwheel.calls.scripts import Script, script

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
class Mutant:
    """What is changed in which scripts, and by what it is to be known."""

    name: str
    scripts: tuple[str, ...]
    old: str
    new: str
    promises: tuple[str, ...]
    """One of these the answers and snapshots must say is broken: a number of lua/README.md, or words."""
    mode: str = "judge"
    """judge: no model beside it; damage: also with damaged keys; clock: nothing but jumps of the clock."""

    def known_by(self, error: str) -> bool:
        """Whether a failure is one that this change must cause."""
        number, _, _ = error.partition(":")
        return number in self.promises or any(words in error for words in self.promises if " " in words)

    def made(self) -> dict[str, Script]:
        """The changed scripts by name. Raises: AssertionError when the text to be changed is not there any more."""
        made = {}
        for name in self.scripts:
            source = script(name).source
            assert self.old in source, f"{name}.lua has no {self.old!r}: mend the mutant {self.name!r}"
            changed = source.replace(self.old, self.new)
            sha = hashlib.sha1(changed.encode(), usedforsecurity=False).hexdigest()
            made[name] = Script(name, changed, sha)
        return made


_TOKEN = " or string.sub(record, 22, 37) ~= token"
_OTHER = "local refusal = verdict(records[i], token)"
MUTANTS = (
    Mutant(name="settle does not look at the token", scripts=("settle",), old=_TOKEN, new="", promises=("I5",)),
    Mutant(name="what goes back does not look at the token", scripts=("settle",), old=_OTHER, new=_OTHER + " == 'm' and 'm' or nil", promises=("I5",)),
    Mutant(name="extend does not look at the token", scripts=("extend",), old=_TOKEN, new="", promises=("I5",)),
    Mutant(
        name="settle takes back what another holds", scripts=("settle",), promises=("I5",),
        old="state ~= 112 or version ~= 50 and version ~= 49" + _TOKEN, new="false",
    ),
    Mutant(
        name="a jump that is told is not noted", scripts=("reap",), promises=("I26",), mode="clock",
        old="if not by then", new="if true then",
    ),
    Mutant(
        name="reap believes a clock in doubt", scripts=("reap",), promises=("I26",),
        old="* 3 > lease * 1000 then", new="* 3 > lease * 1e12 then",
    ),
    Mutant(
        name="reap does not ask whether the clock jumped", scripts=("reap",), promises=("I26",), mode="clock",
        old="ARGV[8] ~= '' and ARGV[8] ~= jumps or ", new="",
    ),
    Mutant(
        name="all is decided by the last stamp", scripts=WRITERS, promises=("the clock",),
        old="return now, math.floor(floor) + 1", new="return math.floor(floor) + 1, math.floor(floor) + 1",
    ),
    Mutant(
        name="reap takes a lease that has not ended", scripts=("reap",), promises=("I4",),
        old="ZRANGE', processing, '-inf', now_ms", new="ZRANGE', processing, '-inf', now_ms + 25000",
    ),
    Mutant(
        name="reap counts one attempt too many", scripts=("reap",), promises=("I8",),
        old="if attempt >= tonumber", new="if attempt > tonumber",
    ),
    Mutant(
        name="enqueue forgets the index", scripts=("enqueue",), promises=("I10",),
        old="redis.call('ZADD', days, unpack(index))", new="",
    ),
    Mutant(
        name="claim fires a little early", scripts=("claim",), promises=("I3",),
        old="\nlocal now_ms = math.floor(now / 1000)\n", new="\nlocal now_ms = math.floor(now / 1000) + 2000\n",
    ),
    Mutant(name="claim leaves jobs in the bucket", scripts=("claim",), promises=("I4", "I9"), old="redis.call('ZREM', bucket, unpack(ids))", new="local _ = bucket"),
    Mutant(
        name="stamps follow the server back", scripts=WRITERS, promises=("I6", "I14", "I2"),
        old="if floor and floor >= now and floor < 9e15 then", new="if false then",
    ),
    Mutant(
        name="enqueue takes a key that is held", scripts=("enqueue",), promises=("I11",),
        old="(holders[d] or taken[digest])", new="taken[digest]",
    ),
    Mutant(
        name="enqueue forgets a window", scripts=("enqueue",), promises=("I11",),
        old="not (ends[i] and tonumber(ends[i]) > now_ms)", new="true",
    ),
    Mutant(
        name="redrive takes a key that is held", scripts=("redrive",), promises=("I11",),
        old="holders[d] and holders[d] ~= id", new="false",
    ),
    Mutant(name="settle keeps the key", scripts=("settle",), promises=("I11",), old="release_dedup(keys.dedup, keys.expiry, out.freed, out.freed_by, now_ms, false)", new=""),
    Mutant(name="prune frees living keys", scripts=("prune",), promises=("I11",), old="if not keeps(records[i], digests[i]) then", new="if true then"),
    Mutant(name="cancel leaves the job on the wheel", scripts=("cancel",), promises=("I9", "I12"), old="redis.call('ZREM', bucket, unpack(off))", new=""),
    Mutant(name="cancel takes running jobs", scripts=("cancel",), promises=("I12",), old="elseif state == 'p' then", new="elseif false then"),
    Mutant(name="reschedule leaves the old place", scripts=("reschedule",), promises=("I9",), old="redis.call('ZREM', from, id)", new=""),
    Mutant(name="what goes back leaves its lease", scripts=("settle",), promises=("I9",), old="for i = 1, #staying do", new="for i = 1, 0 do"),
    Mutant(name="release counts the attempt", scripts=("settle",), promises=("I8",), old="letter == 'b' and 1 or 0", new="0"),
    Mutant(name="an offer counts the attempt", scripts=("offer",), promises=("I8",), old="go_back(out, id, record, 1, ends", new="go_back(out, id, record, 0, ends"),
    Mutant(name="what is offered lies in two places", scripts=("claim",), promises=("I9", "I4"), old="redis.call('HSET', jobs, unpack(records_new))\n      redis.call('ZREM', bucket, unpack(off))", new="redis.call('HSET', jobs, unpack(records_new))"),
    Mutant(name="claim forgets what it answered", scripts=("claim",), promises=("a repeated claim",), old="remember(replay_key, request, token_text", new="local _ = (token_text"),
    Mutant(name="enqueue forgets what it answered", scripts=("enqueue",), promises=("a repeated enqueue",), old="remember(replay_key, request, answer)", new=""),
    Mutant(name="enqueue forgets that it refused", scripts=("enqueue",), promises=("its caller was told full", "I2"), old="remember(replay_key, request, '!full ' .. digits(cap))", new=""),
    Mutant(name="enqueue forgets a chunk", scripts=("enqueue",), promises=("K-03",), old="redis.call('SET', chunk, answer, 'EX', CHUNK_S)", new=""),
    Mutant(name="claim works while paused", scripts=("claim",), promises=("I18",), old="if stored.paused then", new="if false then"),
    Mutant(name="an ended job gives way unasked", scripts=("enqueue",), promises=("I13",), old="ways[i] or 'c',", new="ways[i] or 'cdx',"),
    Mutant(name="a living job gives way", scripts=("enqueue",), promises=("I13",), old="['!'] = 'cdx'", new="['!'] = 'cdxsp'"),
    Mutant(name="a queue over its cap takes more", scripts=("enqueue",), promises=("over the cap",), old="living + created > cap", new="living > cap"),
    Mutant(name="settle trims a job too many", scripts=("settle",), promises=("I1", "I2", "I13"), old="ZCARD', dead) - max", new="ZCARD', dead) - max + 1"),
    Mutant(name="two advance one record", scripts=("advance",), old="or string.sub(record, 3, 18) ~= stamps[n] then", new="then", promises=("I14",)),
    Mutant(name="a paused schedule fires", scripts=("advance",), old="string.sub(record, 1, 2) ~= '1a'", new="string.sub(record, 1, 1) ~= '1'", promises=("I14",)),
    Mutant(name="an occurrence overlaps", scripts=("advance",), old="if state == 's' or state == 'p' then", new="if state == 's' then", promises=("I14",)),
    Mutant(name="what is taken back stays on the wheel", scripts=("define",), old="redis.call('ZREM', keys[bucket], unpack(off))", new="", promises=("I9", "I2")),
    Mutant(
        name="who held a job that was set aside is not fenced", scripts=("repair",), promises=("I5",), mode="damage",
        old="tonumber(string.sub(record, 22, 37)) + 1)", new="tonumber(string.sub(record, 22, 37)))",
    ),
    Mutant(
        name="a token comes twice", scripts=("claim",), promises=("I6",), mode="damage",
        old="if last >= token then", new="if false then",
    ),
)  # fmt: skip
