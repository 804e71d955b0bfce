"""The model is worth its time only if it notices: each of these faults, put into a script, must be found."""

from __future__ import annotations

import os
from importlib import import_module

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.lua.shard import Shard
from tests.mutants.fault import Fault
from tests.servers import RedisServer
from zwheel.calls import Call, Reply
from zwheel.calls.scripts import NAMES, Script

from .cuts import CutsMachine
from .schedules import ScheduleMachine

MUTANTS = (
    Fault("the token is not checked", "include/holders.lua", " or string.sub(record, 22, 37) ~= token then", " then", ("settle",)),
    Fault("a job is claimed a millisecond early", "claim.lua", "\nlocal now_ms = math.floor(now / 1000)\n", "\nlocal now_ms = math.floor(now / 1000) + 1\n"),
    Fault("an emptied day stays in the index", "claim.lua", "redis.call('ZREM', days, first)\n    next_day", "next_day"),
    Fault("a claimed job stays on the wheel", "claim.lua", "redis.call('ZREM', bucket, unpack(ids))", "local _ = bucket"),
    Fault("due work that is left wakes nobody", "include/roles.lua", "alone = next_fire <= now_ms or not", "alone = next_fire > now_ms and not", ("claim",)),
    Fault("a full worker keeps time", "include/roles.lua", "local keeps, seconds = roles.keeper == worker, ", "local keeps, seconds = false, ", ("claim",)),
    Fault("a full worker stays second", "include/roles.lua", "roles.second == worker\n  if keeps then", "false\n  if keeps then", ("claim",)),
    Fault("a role that is laid down calls nobody", "include/roles.lua", "if had or alone then", "if alone then", ("claim",)),
    Fault("who steps down keeps time", "include/roles.lua", "local keeps, seconds = roles.keeper == worker, ", "local keeps, seconds = false, ", ("step_down",)),
    Fault("who steps down calls nobody", "step_down.lua", "push_token(KEYS[3])", "local _ = KEYS[3]"),
    Fault("who becomes timekeeper stays second", "include/roles.lua", "push_token(list)\n      redis.call('HDEL', meta, 'second', 'second_end')", "", ("claim",)),
    Fault("who wants no role keeps the one it has", "include/roles.lua", "  lay_down(meta, roles, worker)\n  if not keeps_time", "  if not keeps_time", ("claim",)),
    Fault("a role lasts for ever", "include/wake.lua", "return at > now_ms and at <= now_ms + LONGEST_ROLE", "return at > now_ms", ("claim",)),
    Fault("the stamp can stand", "include/clock.lua", "return now, math.floor(floor) + 1", "return now, math.floor(floor)", ("claim",)),
    Fault("all is decided by the last stamp", "include/clock.lua", "return now, math.floor(floor) + 1", "return math.floor(floor) + 1, math.floor(floor) + 1", ("claim",)),
    Fault("a step back is not counted", "include/contact.lua", "if last - now > 500000 then", "if false then", ("claim",)),
    Fault("the server's restart is no outage", "reap.lua", "if restarted or ahead then", "if ahead then"),
    Fault("a jump ahead gives no grace", "reap.lua", "if restarted or ahead then", "if restarted then"),
    Fault("a lease that was given ahead stays", "reap.lua", "if #wrong > 0 then", "if false then"),
    Fault("a reap does not ask whether the clock jumped", "reap.lua", "ARGV[8] ~= '' and ARGV[8] ~= jumps or ", ""),
    Fault("a doubtful clock reaps", "reap.lua", "* 3 > lease * 1000 then", "* 3 > lease * 1000000 then"),
    Fault("a lease is not renewed", "extend.lua", "renewed[#renewed + 1] = now_ms + lease", "renewed[#renewed + 1] = now_ms"),
    Fault("no grace after a gap", "reap.lua", "if grace > 0 then\n  return", "if grace < 0 then\n  return"),
    Fault("one attempt too many", "reap.lua", "if attempt >= tonumber", "if attempt > tonumber"),
    Fault("a lease that just lasts is reaped", "reap.lua", "processing, '-inf', now_ms, 'BYSCORE'", "processing, '-inf', now_ms + 1, 'BYSCORE'"),
    Fault("a release counts", "settle.lua", "letter == 'b' and 1 or 0", "0"),
    Fault("a retry does not count", "settle.lua", "letter == 'b' and 1 or 0", "1"),
    Fault("what is offered calls nobody", "offer.lua", "push_token(KEYS[k + 1])", "local _ = k"),
    Fault("an offer counts", "offer.lua", "go_back(out, id, record, 1, ends", "go_back(out, id, record, 0, ends"),
    Fault("what is offered is in two places", "include/offered.lua", "redis.call('HSET', jobs, unpack(records_new))\n      redis.call('ZREM', bucket, unpack(off))", "redis.call('HSET', jobs, unpack(records_new))", ("claim",)),
    Fault("a void note is believed", "include/offered.lua", "or string.sub(record, 22, 37) ~= tokens[i]\n        or tonumber(string.sub(record, 7, 21)) ~= untils[i]", "", ("claim",)),
    Fault("a retried job stays in processing", "include/leave.lua", "for i = 1, #staying do", "for i = 1, 0 do", ("settle",)),
    Fault("a dedup key that is held is taken", "enqueue.lua", "(holders[d] or taken[digest])", "taken[digest]"),
    Fault("a new day is not in the index", "enqueue.lua", "redis.call('ZADD', days, unpack(index))", ""),
    Fault("an id that exists is written over", "enqueue.lua", "local record = seen[id] or here[i]", "local record = seen[id]"),
    Fault("a job that ended gives way unasked", "enqueue.lua", "string.find(ways[i] or 'c',", "string.find(ways[i] or 'cdx',"),
    Fault("who gave way is still listed as ended", "enqueue.lua", "redis.call('ZREM', KEYS[10], unpack(old))", "local _ = old"),
    Fault("who gave way is still listed as dead", "enqueue.lua", "redis.call('ZREM', KEYS[9], unpack(old))", "local _ = old"),
    Fault("a job is slept through", "include/wake.lua", "number(keeper_at, fire + 1) <= fire", "true", ("enqueue",)),
    Fault("a repeat is done again", "settle.lua", "remember(replay_key, request, at .. ' ' .. answer)", ""),
    Fault("a window ends with its job", "include/dedup.lua", "(force or not ends[i]", "(true or not ends[i]", ("settle",)),
    Fault("the dead set grows for ever", "settle.lua", "trim_dead(KEYS[9], jobs, KEYS[4], meta, tonumber(ARGV[others]), now_ms)", ""),
    Fault("a cancelled job stays on the wheel", "cancel.lua", "redis.call('ZREM', bucket, unpack(off))", ""),
    Fault("a running job is cancelled", "cancel.lua", "elseif state == 'p' then", "elseif state == 'P' then"),
    Fault("settle forgets what was asked", "settle.lua", "if not refusal and asked(records[i]) then", "if false then"),
    Fault("a reap forgets what was asked", "reap.lua", "elseif asked(record) then", "elseif false then"),
    Fault("the key of what is cancelled while it runs stays", "include/leave.lua", "if out.forced then", "if false then", ("settle", "reap")),
    Fault("a rescheduled job is in two days", "reschedule.lua", "redis.call('ZREM', from, id)", ""),
    Fault("a redrive takes a held key", "redrive.lua", "or holders[d] and holders[d] ~= id", ""),
    Fault("a living job's key is freed", "prune.lua", "if not keeps(records[i], digests[i]) then", "if true then"),
    Fault("two advance one record", "advance.lua", "or string.sub(record, 3, 18) ~= stamps[n] then", "then"),
    Fault("an occurrence is written over", "include/place.lua", "if here or new.seen[id] then", "if new.seen[id] then", ("advance",)),
    Fault("an occurrence overlaps", "advance.lua", "if state == 's' or state == 'p' then", "if state == 's' then"),
    Fault("an edit takes back what was claimed", "define.lua", "local there = found == 's0000' .. ARGV[b + 1]", "local there = string.sub(found or '', 1, 1) == 's' and string.sub(found, 6) == '0' .. ARGV[b + 1]"),
    Fault("an edit takes back what was moved", "define.lua", "local there = found == 's0000' .. ARGV[b + 1]", "local there = string.sub(found or '', 1, 5) == 's0000'"),
    Fault("an occurrence is given back by an old token", "define.lua", " and string.sub(here[id], 22, 37) == ARGV[b + 1]", ""),
    Fault("an occurrence is given back before it is late", "define.lua", "if there and math.floor(now / 1000) <= tonumber(ARGV[b + 3]) then", "if false then"),
    Fault("what is taken back stays on the wheel", "define.lua", "redis.call('ZREM', keys[bucket], unpack(off))", ""),
    Fault("a done job leaves its body", "include/moves.lua", "if apart(record) then", "if false then", ("settle",)),
    Fault("a tombstone asks for a body", "include/record.lua", "if apart(record) then", "if false then", ("settle",)),
    Fault("who gave way leaves its body", "enqueue.lua", "drop_bodies(bodies, bare)", ""),
    Fault("a cancelled job leaves its body", "cancel.lua", "drop_bodies(bodies, large)", ""),
    Fault("a claim is without its body", "claim.lua", "if large then\n  join(bodies, claimed)\nend", ""),
    Fault("an occurrence leaves its body", "define.lua", "drop_bodies(bodies, bare)", ""),
    Fault("what is purged leaves its body", "purge.lua", "drop_bodies(bodies, rest)", ""),
    Fault("a purged day stays in the index", "purge.lua", "if ARGV[2] ~= '' and", "if false and"),
)  # fmt: skip

#: Faults of a cut, which the machine of several shards finds.
OF_CUTS = (
    Fault("a batch goes before it has arrived", "depart.lua", "and (last == 0 or ARGV[2] ~= digits(last)) then", "and false then"),
    Fault("a body stays behind", "depart.lua", "put('b' .. large[i], found[i])", "local _ = found"),
    Fault("what left is still on the wheel", "depart.lua", "redis.call('ZREM', set, unpack(ids))", "local _ = set"),
    Fault("a day that all left stays in the index", "depart.lua", "redis.call('ZREM', days, string.match(KEYS[b], '%d+$'))", "local _ = days"),
    Fault("a batch arrives twice", "arrive.lua", "if number(redis.call('HGET', arrived, ARGV[3]), -1) >= tonumber(ARGV[4]) then", "if false then"),
    Fault("an arrival forgets the index", "arrive.lua", "note(written, days, ARGV[LAYOUT_AT - 1 + 2 * b], ARGV[LAYOUT_AT - 1 + 2 * b])", "local _ = days"),
    Fault("a former cut takes jobs", "enqueue.lua", "if stored.shards then", "if false then"),
    Fault("a shard that is closed stays open", "reshard.lua", "'shards', cut, 'schema'", "'schema'"),
)  # fmt: skip


#: Most are found within 100, and the rarest of these in 150 on the average: the rest is for bad luck.
EXAMPLES = 2000
#: These need long histories: they are looked for when ZWHEEL_MODEL_EXAMPLES asks for many. The script tables find them
#: always.
RARE = {
    "an occurrence overlaps",
    "a redrive takes a held key",
    "a running job is cancelled",
    "a reap forgets what was asked",
    "settle forgets what was asked",
    "the key of what is cancelled while it runs stays",
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


class FaultyShard(Shard):
    """A shard where some scripts have a fault."""

    faulty: dict[str, Script]

    def run(self, call: Call) -> Reply:
        return super().run(call._replace(script=self.faulty.get(call.script.name, call.script)))


def test_each_fault_replaces_a_text_that_is_there_once() -> None:
    all_of_them = (*MUTANTS, *OF_CUTS)
    assert len({mutant.name for mutant in all_of_them}) == len(all_of_them)
    assert all(mutant.made() for mutant in all_of_them)


def test_every_script_of_a_jobs_life_has_a_mutant() -> None:
    assert {name for mutant in (*MUTANTS, *OF_CUTS) for name in mutant.made()} == set(NAMES) - {"repair"}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "mutant", [m for m in MUTANTS if m.name not in RARE or LOOK_FOR_RARE], ids=lambda mutant: mutant.name
)
def test_a_fault_is_found(fresh: RedisServer, mutant: Fault) -> None:
    find(fresh, mutant, ScheduleMachine)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mutant", OF_CUTS, ids=lambda mutant: mutant.name)
def test_a_fault_of_a_cut_is_found(fresh: RedisServer, mutant: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("zwheel.operations.reshard"), "DEPART_LIMIT", 2)
    find(fresh, mutant, CutsMachine)


def find(fresh: RedisServer, mutant: Fault, kind: type[RuleBasedStateMachine]) -> None:
    """Let a machine look for a fault."""
    with fresh.client() as client:
        shard = FaultyShard(client, fresh.kind)
        shard.faulty = mutant.made()
        machine = type("Machine", (kind,), {"shard": shard})
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
