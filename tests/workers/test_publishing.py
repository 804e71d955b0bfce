"""What workers publish of their tasks, and that a task's own policy holds for jobs that were made without knowing it."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, one_kind, running
from tests.workers.processes import worker_process
from zwheel import JobState, Reason, SyncWheel, Wheel
from zwheel.keys import tasks_key
from zwheel.published.task import read_row, row_of
from zwheel.workers import publishing

pytestmark = [pytest.mark.anyio, one_kind]
TASKS = tasks_key("zw")


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    async with Wheel(url, namespace="zw", give_up_s=5) as made:

        @made.task(name="shop.charge", queue="money", retries=0)
        async def charge(card: str) -> None:
            raise ValueError(card)

        yield made


def stored(server: RedisServer, name: str = "shop.charge") -> dict[str, Any]:
    with server.client() as client:
        raw: Any = client.hget(TASKS, name)
    assert read_row(name, raw) is not None
    row: dict[str, Any] = json.loads(raw)
    return row


def age(client: Any, ms: int) -> None:
    """Let the row of the task be as old as if nobody had written it for so long."""
    facts, _, seen = client.hget(TASKS, "shop.charge").rpartition(b":")
    client.hset(TASKS, "shop.charge", b"%b:%d}" % (facts, int(seen[:-1]) - ms))


async def test_a_worker_has_published_its_tasks_when_it_is_ready(wheel: Wheel, fresh: RedisServer) -> None:
    async with running(wheel, queues=("other",)):
        row = stored(fresh)
        assert (row["queue"], row["retries"], row["params"]) == ("money", 0, [["card", "either", True, "str"]])
        (task,) = await wheel.published_tasks()
        assert task == read_row("shop.charge", json.dumps(row)) or task.name == "shop.charge"
        # It knows the task and does not serve its queue.
        serving = await wheel.serving([("money", "shop.charge"), ("other", "shop.charge"), ("other", "unknown")])
    assert [(one.workers, one.knowing, one.nobody) for one in serving.values()] == [
        (0, 0, True), (1, 1, False), (1, 0, True),
    ]  # fmt: skip


async def test_what_is_lost_is_published_again(
    wheel: Wheel, fresh: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "EVERY_S", 0.05)
    async with running(wheel):
        with fresh.client() as client:
            client.delete(TASKS)
            client.hset(TASKS, "shop.charge", b"damaged")
            await eventually(lambda: wheel.published_task("shop.charge"), lambda task: task is not None)


async def test_the_worker_that_started_last_is_right_as_long_as_one_of_its_kind_lives(
    wheel: Wheel, fresh: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "EVERY_S", 0.05)
    async with running(wheel), Wheel(fresh.url, namespace="zw") as newer:

        @newer.task(name="shop.charge", queue="cash", retries=3)
        async def charge(card: str) -> None: ...

        async with running(newer) as later:
            assert stored(fresh)["queue"] == "cash"
            with fresh.client() as client:
                # A minute later: workers that agree write it anew, the others leave it.
                age(client, 60_000)
            old = stored(fresh)["seen_ms"]
            await eventually(
                lambda: wheel.published_task("shop.charge"),
                lambda task: task is not None and task.seen_ms > old + 50_000,
            )
            assert stored(fresh)["queue"] == "cash"
            await later.stop()
        with fresh.client() as client:
            # Nobody of that kind has written it for some minutes.
            age(client, 200_000)
        await eventually(
            lambda: wheel.published_task("shop.charge"), lambda task: task is not None and task.policy.queue == "money"
        )


async def test_a_task_that_nobody_published_for_a_month_is_forgotten(
    wheel: Wheel, fresh: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "EVERY_S", 0.05)
    with fresh.client() as client:
        now_ms = 1000 * int(client.time()[0])
        for name, days in (("old", 31), ("young", 29)):
            client.hset(TASKS, name, row_of(wheel.tasks["shop.charge"], "", now_ms - days * 86_400_000))
    async with running(wheel):
        await eventually(lambda: wheel.published_task("old"), lambda task: task is None)
        assert await wheel.published_task("young") is not None


async def test_a_worker_that_may_not_publish_says_so_and_works(
    wheel: Wheel, fresh: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with fresh.client() as client:
        client.set(TASKS, "another program's")
    log = Log()
    with caplog.at_level(logging.WARNING, "zwheel.worker"):
        async with running(wheel, log, queues=("money",)):
            answer = await wheel.tasks["shop.charge"].enqueue("1")  # type: ignore[attr-defined]
            await log.seen("buried", answer.job_id)
    assert sum("the tasks are not published" in record.getMessage() for record in caplog.records) == 1


async def test_the_tasks_own_retries_hold_for_a_job_that_was_made_without_knowing_them(wheel: Wheel, url: str) -> None:
    # A card is charged once, not eleven times: nobody had published the task when the job was made.
    with SyncWheel(url, namespace="zw") as stranger:
        answer = stranger.enqueue("shop.charge", args=["4242"], queue="money")
        said = stranger.enqueue("shop.charge", args=["4242"], queue="money", retries=1)
    log = Log()
    async with running(wheel, log, queues=("money",)):
        await log.seen("buried", answer.job_id)
        await log.seen("retried", said.job_id)
    assert len(log.of("start", answer.job_id)) == 1


async def test_a_job_that_killed_its_worker_is_not_tried_again_when_its_task_says_so(url: str, tmp_path: Path) -> None:
    app = tmp_path / "once.py"
    app.write_text(
        "import os, signal\nfrom zwheel import Wheel\nwheel = Wheel()\n"
        "@wheel.task(name='once', retries=0, keep=60)\n"
        "async def once(path: str) -> None:\n"
        "    with open(path, 'a') as file:\n        file.write('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        encoding="utf-8",
    )
    ran = tmp_path / "ran"
    async with Wheel(url, namespace="zw") as wheel:
        answer = await wheel.enqueue("once", args=[str(ran)], keep=60)
        job = await wheel.get(answer.job_id)
        assert job is not None and job.max_attempts == 11
        async with worker_process(url, tmp_path, app="once:wheel", cwd=tmp_path, wait=False) as first:
            assert await first.ended(30) == -signal.SIGKILL
        async with worker_process(url, tmp_path, app="once:wheel", cwd=tmp_path):
            dead = await wheel.wait(answer.job_id, timeout=30)
    assert (dead.state, dead.reason) == (JobState.DEAD, Reason.LEASE_EXPIRED)
    assert ran.read_text() == "x"


async def test_schedules_by_name_let_the_tasks_own_retries_hold(wheel: Wheel, url: str) -> None:
    async with Wheel(url, namespace="zw") as stranger:
        made = stranger.new_schedule("pay", "* * * * * *", "shop.charge", args=["1"], queue="money", max_count=1)
        await stranger.add_schedule(made)
    log = Log()
    async with running(wheel, log, queues=("money",)):
        await log.seen("buried")
    assert log.of("retried") == []


async def test_arguments_that_nobody_could_check_are_checked_where_the_task_is_known(wheel: Wheel, url: str) -> None:
    # Words of a command line, from before the task was published: 'false' is not to mean yes.
    got: list[object] = []

    @wheel.task(name="shop.delete", queue="money")
    async def delete(order: int, really: bool = False, tags: list[str] | None = None) -> None:
        got.append((order, really, tags))

    with SyncWheel(url, namespace="zw") as stranger:
        for kwargs in (
            {"order": "8", "really": "false"}, {"order": 8, "really": True, "tags": '["a"]'}, {"order": "eight"},
            {"order": 8, "really": "no"}, {"order": 8, "tags": "a"},
        ):  # fmt: skip
            stranger.enqueue("shop.delete", kwargs=kwargs, queue="money", retries=0, keep=60)
        made = stranger.new_schedule("often", "* * * * * *", "shop.delete", args=["9"], queue="money", max_count=1)
        stranger.add_schedule(made)
    log = Log()
    async with running(wheel, log, queues=("money",)):
        await log.seen("buried", count=3)
        await log.until(lambda: len(got) == 3)
    assert sorted(got, key=repr) == [(8, False, None), (8, True, ["a"]), (9, False, None)]
    reasons = {job.reason for job in await wheel.dead("money")}
    assert reasons == {Reason.BAD_ARGUMENTS}
