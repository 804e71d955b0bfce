"""The model is worth its time only if it notices: each of these faults, put into a script, must be found."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.lua.shard import Shard
from tests.servers import RedisServer
from zwheel.calls import Call, Reply
from zwheel.calls.scripts import NAMES, Script, script

from .schedules import ScheduleMachine

#: What is wrong -> the script, its text, and what stands there instead.
MUTANTS = {
    "the token is not checked": ("settle", " or string.sub(record, 22, 37) ~= token then", " then"),
    "a job is claimed a millisecond early": ("claim", "\nlocal now_ms = math.floor(now / 1000)\n", "\nlocal now_ms = math.floor(now / 1000) + 1\n"),
    "an emptied day stays in the index": ("claim", "redis.call('ZREM', days, first)\n    next_day", "next_day"),
    "a claimed job stays on the wheel": ("claim", "redis.call('ZREM', bucket, unpack(ids))", "local _ = bucket"),
    "due work that is left wakes nobody": ("claim", "alone = next_fire <= now_ms or not", "alone = next_fire > now_ms and not"),
    "a full worker keeps time": ("claim", "local keeps, seconds = roles.keeper == worker, ", "local keeps, seconds = false, "),
    "a full worker stays second": ("claim", "roles.second == worker\n  if keeps then", "false\n  if keeps then"),
    "a role that is laid down calls nobody": ("claim", "if had or alone then", "if alone then"),
    "who steps down keeps time": ("step_down", "local keeps, seconds = roles.keeper == worker, ", "local keeps, seconds = false, "),
    "who steps down calls nobody": ("step_down", "push_token(KEYS[3])", "local _ = KEYS[3]"),
    "who becomes timekeeper stays second": ("claim", "push_token(list)\n      redis.call('HDEL', meta, 'second', 'second_end')", ""),
    "a role lasts for ever": ("claim", "return at > now_ms and at <= now_ms + LONGEST_ROLE", "return at > now_ms"),
    "the stamp can stand": ("claim", "return now, math.floor(floor) + 1", "return now, math.floor(floor)"),
    "all is decided by the last stamp": ("claim", "return now, math.floor(floor) + 1", "return math.floor(floor) + 1, math.floor(floor) + 1"),
    "a step back is not counted": ("claim", "if last - now > 500000 then", "if false then"),
    "the server's restart is no outage": ("reap", "if restarted or ahead then", "if ahead then"),
    "a jump ahead gives no grace": ("reap", "if restarted or ahead then", "if restarted then"),
    "a lease that was given ahead stays": ("reap", "if #wrong > 0 then", "if false then"),
    "a reap does not ask whether the clock jumped": ("reap", "ARGV[8] ~= '' and ARGV[8] ~= jumps or ", ""),
    "a doubtful clock reaps": ("reap", "* 3 > lease * 1000 then", "* 3 > lease * 1000000 then"),
    "a lease is not renewed": ("extend", "renewed[#renewed + 1] = now_ms + lease", "renewed[#renewed + 1] = now_ms"),
    "no grace after a gap": ("reap", "if grace > 0 then\n  return", "if grace < 0 then\n  return"),
    "one attempt too many": ("reap", "if attempt >= tonumber", "if attempt > tonumber"),
    "a lease that just lasts is reaped": ("reap", "processing, '-inf', now_ms, 'BYSCORE'", "processing, '-inf', now_ms + 1, 'BYSCORE'"),
    "a release counts": ("settle", "letter == 'b' and 1 or 0", "0"),
    "a retry does not count": ("settle", "letter == 'b' and 1 or 0", "1"),
    "what is offered calls nobody": ("offer", "push_token(KEYS[k + 1])", "local _ = k"),
    "an offer counts": ("offer", "go_back(out, id, record, 1, ends", "go_back(out, id, record, 0, ends"),
    "what is offered is in two places": ("claim", "redis.call('HSET', jobs, unpack(records_new))\n      redis.call('ZREM', bucket, unpack(off))", "redis.call('HSET', jobs, unpack(records_new))"),
    "a void note is believed": ("claim", "or string.sub(record, 22, 37) ~= tokens[i]\n        or tonumber(string.sub(record, 7, 21)) ~= untils[i]", ""),
    "a retried job stays in processing": ("settle", "for i = 1, #staying do", "for i = 1, 0 do"),
    "a dedup key that is held is taken": ("enqueue", "(holders[d] or taken[digest])", "taken[digest]"),
    "a new day is not in the index": ("enqueue", "redis.call('ZADD', days, unpack(index))", ""),
    "an id that exists is written over": ("enqueue", "local record = seen[id] or here[i]", "local record = seen[id]"),
    "a job that ended gives way unasked": ("enqueue", "string.find(ways[i] or 'c',", "string.find(ways[i] or 'cdx',"),
    "who gave way is still listed as ended": ("enqueue", "redis.call('ZREM', KEYS[9], unpack(old))", "local _ = old"),
    "who gave way is still listed as dead": ("enqueue", "redis.call('ZREM', KEYS[8], unpack(old))", "local _ = old"),
    "a job is slept through": ("enqueue", "number(keeper_at, fire + 1) <= fire", "true"),
    "a repeat is done again": ("settle", "remember(replay_key, request, at .. ' ' .. answer)", ""),
    "a window ends with its job": ("settle", "(force or not ends[i]", "(true or not ends[i]"),
    "the dead set grows for ever": ("settle", "trim_dead(KEYS[8], jobs, meta, tonumber(ARGV[others]), now_ms)", ""),
    "a cancelled job stays on the wheel": ("cancel", "redis.call('ZREM', bucket, unpack(off))", ""),
    "a running job is cancelled": ("cancel", "elseif state == 'p' then", "elseif state == 'P' then"),
    "a rescheduled job is in two days": ("reschedule", "redis.call('ZREM', from, id)", ""),
    "a redrive takes a held key": ("redrive", "or holders[d] and holders[d] ~= id", ""),
    "a living job's key is freed": ("prune", "if not keeps(records[i], digests[i]) then", "if true then"),
    "two advance one record": ("advance", "or string.sub(record, 3, 18) ~= stamps[n] then", "then"),
    "an occurrence is written over": ("advance", "if here or seen[id] then", "if seen[id] then"),
    "an occurrence overlaps": ("advance", "if state == 's' or state == 'p' then", "if state == 's' then"),
    "an edit takes back what was claimed": ("define", "local there = found == 's0000' .. ARGV[b + 1]", "local there = string.sub(found or '', 1, 1) == 's' and string.sub(found, 6) == '0' .. ARGV[b + 1]"),
    "an edit takes back what was moved": ("define", "local there = found == 's0000' .. ARGV[b + 1]", "local there = string.sub(found or '', 1, 5) == 's0000'"),
    "an occurrence is given back by an old token": ("define", " and string.sub(here[id], 22, 37) == ARGV[b + 1]", ""),
    "an occurrence is given back before it is late": ("define", "if there and math.floor(now / 1000) <= tonumber(ARGV[b + 3]) then", "if false then"),
    "what is taken back stays on the wheel": ("define", "redis.call('ZREM', keys[bucket], unpack(off))", ""),
    "a purged day stays in the index": ("purge", "if ARGV[2] ~= '' and", "if false and"),
}  # fmt: skip


#: Most are found within 100, and the rarest of these in 150 on the average: the rest is for bad luck.
EXAMPLES = 2000
#: These need long histories: they are looked for when ZWHEEL_MODEL_EXAMPLES asks for many. The script tables find them
#: always.
RARE = {
    "an occurrence overlaps",
    "a redrive takes a held key",
    "a running job is cancelled",
    "the dead set grows for ever",
    "a lease that was given ahead stays",
    "due work that is left wakes nobody",
    "a lease that just lasts is reaped",
}
LOOK_FOR_RARE = int(os.environ.get("ZWHEEL_MODEL_EXAMPLES", "0")) >= 500


@pytest.fixture(scope="session")
def server_kind() -> str:
    """One kind of server is enough: it is the model that is looked at here."""
    return "valkey"


@dataclass(frozen=True)
class Mutant:
    """One script with a fault."""

    name: str
    script: Script


def mutant(name: str) -> Mutant:
    target, old, new = MUTANTS[name]
    source = script(target).source
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {target}.lua"
    changed = source.replace(old, new)
    return Mutant(target, Script(target, changed, hashlib.sha1(changed.encode(), usedforsecurity=False).hexdigest()))


class MutatedShard(Shard):
    """A shard where one script is another."""

    mutant: Mutant

    def run(self, call: Call) -> Reply:
        return super().run(call._replace(script=self.mutant.script) if call.script.name == self.mutant.name else call)


def test_each_fault_replaces_a_text_that_is_there_once() -> None:
    assert all(mutant(name) for name in MUTANTS)


def test_every_script_of_a_jobs_life_has_a_mutant() -> None:
    assert {target for target, _, _ in MUTANTS.values()} == set(NAMES) - {"repair"}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in RARE or LOOK_FOR_RARE])
def test_a_fault_is_found(fresh: RedisServer, name: str) -> None:
    with fresh.client() as client:
        shard = MutatedShard(client, fresh.kind)
        shard.mutant = mutant(name)
        machine = type("Machine", (ScheduleMachine,), {"shard": shard})
        with pytest.raises(AssertionError):
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=40,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    phases=[Phase.generate],
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
