"""What the recorder writes, when, and that it writes nothing when it is not asked to."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer
from tests.workers.harness import Log, running
from zwheel import SyncWheel, Wheel
from zwheel.broker.store import SyncStore
from zwheel.calls import Session, prune
from zwheel.errors import BrokerUnavailable, ConfigError, OutcomeUnknown
from zwheel.failpoints import FAILPOINTS
from zwheel.history import History, Recorder

pytestmark = pytest.mark.anyio


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl"))


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in files(directory) for line in path.read_text().splitlines()]


async def test_nothing_is_written_unless_it_is_asked_for(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZWHEEL_HISTORY", raising=False)
    monkeypatch.chdir(tmp_path)
    async with Wheel(url, namespace="zw") as wheel:
        await wheel.enqueue("t")
        client = wheel._connect()
        assert client.store.recorder is None
    assert files(tmp_path) == []


async def test_a_call_is_a_pair_of_lines(url: str, tmp_path: Path) -> None:
    async with Wheel(url, namespace="zw", history=tmp_path) as wheel:
        await wheel.enqueue("t", args=["secret"], id="a", delay=60, dedup="k", within=5, retries=3)
        await wheel.enqueue("t", id="b", delay=60, dedup="k", within=5)
    asked, told, _, second = lines(tmp_path)
    assert (asked["phase"], told["phase"], asked["seq"]) == ("invoke", "ok", told["seq"])
    assert asked["op"] == told["op"] == "enqueue"
    assert asked["request"] == told["request"]
    assert asked["proc"] == told["proc"]
    assert asked["proc"].split(":")[1] == str(os.getpid())
    assert told["receipt"] == "memory"
    (job,) = told["jobs"]
    assert job["id"] == "a"
    assert (job["letter"], job["delay"], job["window"], job["most"], len(job["digest"])) == ("c", 60_000, 5_000, 4, 32)
    assert job["fire"] == -(-told["redis_us"] // 1000) + 60_000
    assert abs(asked["est_us"] - told["redis_us"]) <= asked["err_us"]
    assert (second["jobs"][0]["letter"], second["jobs"][0]["held"]) == ("k", "a")
    assert "secret" not in json.dumps(lines(tmp_path))


async def test_the_environment_turns_it_on_for_every_client(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZWHEEL_HISTORY", str(tmp_path))
    async with Wheel(url, namespace="zw") as wheel:
        await wheel.enqueue("t", id="a", delay=60)
    with SyncWheel(url, namespace="zw") as blocking:
        blocking.cancel("a", "default")
        blocking.pause("default")
        blocking.resume("default")
    assert [line["op"] for line in lines(tmp_path) if line["phase"] == "ok"] == ["enqueue", "cancel", "pause", "resume"]
    assert len(files(tmp_path)) == 1


async def test_a_repeat_after_a_lost_answer_is_a_pair_of_its_own(url: str, tmp_path: Path) -> None:
    FAILPOINTS.arm("enqueue.after", "lose")
    async with Wheel(url, namespace="zw", history=tmp_path) as wheel:
        await wheel.enqueue("t", id="a", delay=60)
    found = lines(tmp_path)
    assert [line["phase"] for line in found] == ["invoke", "info", "invoke", "ok"]
    assert len({line["request"] for line in found}) == 1
    assert len({line["seq"] for line in found}) == 2
    assert "OutcomeUnknown" in found[1]["error"]
    assert found[3]["jobs"][0]["letter"] == "c"


async def test_what_was_never_sent_has_failed(tmp_path: Path) -> None:
    async with Wheel("redis://127.0.0.1:1", namespace="zw", history=tmp_path, give_up_s=0) as wheel:
        client = wheel._connect()
        client.store.session.counts["default"] = 1
        client.known.add("default")
        with pytest.raises(BrokerUnavailable):
            await client.store_batch([wheel.new_job("t")], None)
    assert [line["phase"] for line in lines(tmp_path)] == ["invoke", "fail"]


async def test_an_answer_that_stays_away_is_of_unknown_outcome(fresh: RedisServer, tmp_path: Path) -> None:
    async with Wheel(fresh.url, namespace="zw", history=tmp_path, give_up_s=0, timeout_s=0.2) as wheel:
        await wheel.enqueue("t", delay=60)
        fresh.freeze()
        try:
            with pytest.raises(OutcomeUnknown):
                await wheel.enqueue("t", delay=60)
        finally:
            fresh.thaw()
    assert [line["phase"] for line in lines(tmp_path)] == ["invoke", "ok", "invoke", "info"]


async def test_a_full_queue_has_refused(url: str, tmp_path: Path) -> None:
    async with Wheel(url, namespace="zw", history=tmp_path) as wheel:
        await wheel.set_cap("default", 1)
        await wheel.enqueue("t", delay=60)
        with pytest.raises(Exception, match="full"):
            await wheel.enqueue("t", delay=60)
    refused = lines(tmp_path)[-1]
    assert (refused["phase"], refused["word"]) == ("fail", "full")


async def test_a_worker_tells_of_its_looks_at_the_wheel_and_of_times_in_which_it_did_not_run(
    url: str, tmp_path: Path
) -> None:
    log = Log()
    async with Wheel(url, namespace="zw", history=tmp_path) as wheel:

        @wheel.task(name="block")
        async def block() -> None:
            time.sleep(0.8)  # noqa: ASYNC251

        async with running(wheel, log, lease_ms=30_000):
            await log.seen("looked")
            await block.enqueue()
            await log.seen("stalled")
    found = lines(tmp_path)
    (look, *_), (stall, *_) = ([line for line in found if line["op"] == op] for op in ("look", "stall"))
    claim = next(line for line in found if line["op"] == "claim" and line["phase"] == "ok")
    assert look["proc"] == stall["proc"] == claim["proc"]
    assert (look["queue"], look["phase"], stall["queue"]) == ("default", "ok", None)
    asked, answered = look["args"]["window"]
    assert claim["redis_us"] < asked <= answered <= look["est_us"]
    since, until = stall["args"]["window"]
    # It is asked whether it turns four times a second: what of a stall came before that is not seen.
    assert until - since > 400_000
    (start,) = (line for line in found if line["op"] == "start")
    assert start["est_us"] < until


def test_a_forked_process_writes_a_file_of_its_own(tmp_path: Path) -> None:
    mine = History.of(tmp_path)
    assert History.of(tmp_path) is mine
    child = os.fork()
    if child == 0:
        try:
            History.of(tmp_path).write([{"op": "x"}])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["", '{"op":"x"}\n']
    mine.close()


def test_a_directory_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="history"):
        History.of(tmp_path / "file")


def test_where_a_test_gives_the_time_no_other_clock_runs_beside_it(server: RedisServer, tmp_path: Path) -> None:
    """A machine that is slow for a moment is no clock that was set back."""
    history = History(tmp_path)
    session = Session("zw", "given")
    store = SyncStore(server.url, session)
    store.recorder = Recorder(history, session)
    for second in (1_900_000_000, 1_900_000_001):
        session.now = f"{second}000000"
        store.send([prune(session.keys("q"), limit=1, dead_age_ms=1, now=session.now)])
    store.close()
    history.close()
    times = [line["mono_ns"] for line in lines(tmp_path)]
    assert times == [1_900_000_000 * 10**9] * 2 + [1_900_000_001 * 10**9] * 2
