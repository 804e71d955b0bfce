"""The main flows as users with exactly the rules that `zwheel acl` prints. V-09."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, running
from zwheel import Backoff, BrokerRefused, SyncWheel, Wheel
from zwheel.broker.acl import Role, command_after, command_for, commands
from zwheel.cli import run
from zwheel.keys import ShardKeys

from .conftest import AsRole

KEYS = ShardKeys.of("zw", "default")
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run a command line for a URL; give its exit code and what it wrote."""
    monkeypatch.setenv("ZWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(url: str, *words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = run([*words, "--url", url])
        out, err = capsys.readouterr()
        return int(code), out + err

    return call


def fill(wheel: SyncWheel) -> None:
    wheel.enqueue("mail.send", id="soon", delay=3600)
    wheel.enqueue("mail.send", id="later", delay=86_400 * 3)
    wheel.enqueue("mail.send", id="unique", delay=60, dedup="key", within=60)


def test_a_producer_enqueues_one_by_one_and_in_bulk(as_role: AsRole, fresh: RedisServer) -> None:
    with SyncWheel(as_role(Role.PRODUCER), give_up_s=0.5) as wheel:
        fill(wheel)
        assert wheel.enqueue("mail.send", id="soon").existed
        assert wheel.enqueue("mail.send", dedup="key").existed
        with fresh.client() as admin:
            admin.hset(KEYS.meta, "cap", "1000")
        with SyncWheel(fresh.url) as other:
            assert other.cancel("later") == "cancelled"
        assert wheel.enqueue("mail.send", id="later", delay=86_400 * 3, replace=True).replaced
        assert len(list(wheel.enqueue_many(wheel.new_job("mail.send", delay=n) for n in range(300)))) == 300
    with fresh.client() as admin:
        assert admin.hlen(KEYS.jobs) == 303


@pytest.mark.anyio
async def test_a_worker_runs_retries_reaps_prunes_and_fires_schedules(as_role: AsRole, fresh: RedisServer) -> None:
    log = Log()
    url = as_role(Role.WORKER, Role.PRODUCER)
    async with Wheel(url) as wheel:

        @wheel.task(name="work", retries=1, backoff=Backoff(first=0.01))
        async def work(how: str = "well") -> None:
            if how == "badly":
                raise ValueError(how)
            if how == "slowly":
                await asyncio.sleep(60)

        @wheel.cron("* * * * * *")
        @wheel.task(name="tick")
        async def tick() -> None:
            pass

        async with running(wheel, log) as first:
            await work.enqueue("well")
            await work.options(id="bad").enqueue("badly")
            await work.options(id="slow").enqueue("slowly")
            await log.seen("start", "bad", count=2)
            await log.seen("start", "slow")
            await log.until(lambda: any(about["job"].startswith("tick@") for about in log.of("start")))
            await first.vanish()
        async with running(wheel, log):
            await log.seen("start", "slow", count=2, within=20)
    with fresh.client() as admin:
        assert admin.hlen(KEYS.schedules) == 1


def test_a_reader_sees_everything_and_changes_nothing(as_role: AsRole, fresh: RedisServer, command: Command) -> None:
    with SyncWheel(fresh.url) as wheel:
        fill(wheel)
    url = as_role(Role.READER)
    for words in (
        ("queue", "ls"), ("queue", "show", "default"), ("job", "ls"), ("job", "show", "soon"), ("day", "ls"),
        ("dead", "ls"), ("workers", "ls"), ("schedule", "ls"),
    ):  # fmt: skip
        code, told = command(url, *words)
        assert (code, "refused" in told) == (0, False), (words, told)
    for words in (("job", "cancel", "soon"), ("queue", "pause", "default"), ("enqueue", "mail.send")):
        code, told = command(url, *words)
        assert code == 6, (words, told)
    with fresh.client() as admin:
        assert admin.hlen(KEYS.jobs) == 3 and not admin.hexists(KEYS.meta, "paused")


def test_an_operator_acts_on_jobs_queues_and_schedules(as_role: AsRole, fresh: RedisServer, command: Command) -> None:
    with SyncWheel(fresh.url) as wheel:
        fill(wheel)
    with fresh.client() as admin:
        record: Any = admin.hget(KEYS.jobs, "unique")
        admin.hset(KEYS.jobs, "lost", record[:1] + b"x" + record[2:])
        admin.zadd(KEYS.dead, {"lost": 1})
    url = as_role(Role.OPERATOR)
    for words in (
        ("job", "reschedule", "soon", "--in", "2h"), ("job", "cancel", "soon"), ("dead", "ls"), ("dead", "purge", "--queue", "default", "--yes"),
        ("dead", "redrive", "--queue", "default", "--yes"), ("queue", "pause", "default"), ("queue", "resume", "default"),
        ("queue", "purge", "default", "--state", "scheduled", "--yes"), ("queue", "ls"), ("enqueue", "mail.send", "--in", "1h"),
        ("schedule", "add", "nightly", "0 3 * * *", "mail.send"), ("schedule", "pause", "nightly"),
        ("schedule", "resume", "nightly"), ("schedule", "trigger", "nightly"), ("schedule", "show", "nightly"),
        ("schedule", "remove", "nightly", "--yes"),
    ):  # fmt: skip
        code, told = command(url, *words)
        assert "refused" not in told and "lacks" not in told, (words, told)
        assert code == 0, (words, told)


def test_a_doctor_looks_and_repairs(as_role: AsRole, fresh: RedisServer, command: Command) -> None:
    with SyncWheel(fresh.url) as wheel:
        fill(wheel)
    with fresh.client() as admin:
        (bucket,) = [key for key in admin.keys(f"{KEYS.tag}:wheel:*") if admin.zscore(key, "later") is not None]
        admin.zrem(bucket, "later")
    url = as_role(Role.DOCTOR)
    _, told = command(url, "doctor", "--queue", "default", "--json")
    found = {f["check"]: f["level"] for line in told.splitlines() if (f := json.loads(line)).get("check")}
    assert found["rights"] == "ok"
    assert "refused" not in told
    _, told = command(url, "doctor", "--queue", "default", "--repair", "--yes")
    assert "refused" not in told
    with fresh.client() as admin:
        assert admin.zscore(bucket, "later") is not None


def test_a_producer_that_may_not_touch_the_list_of_queues_stores_nothing(as_role: AsRole, fresh: RedisServer) -> None:
    with SyncWheel(as_role(Role.PRODUCER, without=("~zw:queues",)), give_up_s=0.2) as wheel:
        for _ in range(2):
            with pytest.raises(BrokerRefused, match="zwheel acl"):
                wheel.enqueue("mail.send")
    with fresh.client() as admin:
        assert admin.keys("*") == []


def test_a_producer_that_lacks_any_right_leaves_no_queue_behind(as_role: AsRole, fresh: RedisServer) -> None:
    for command in set(commands(Role.PRODUCER)) - {"script|load"}:
        with (
            SyncWheel(as_role(Role.PRODUCER, without=(f"+{command}",)), give_up_s=0.2) as wheel,
            suppress(BrokerRefused),
        ):
            wheel.enqueue("mail.send", dedup="key")
        with fresh.client() as admin:
            assert bool(admin.exists("zw:queues")) == bool(admin.exists(KEYS.jobs)), command
            admin.flushall()


def test_a_producer_whose_scripts_others_loaded_may_enqueue(as_role: AsRole, fresh: RedisServer) -> None:
    with SyncWheel(as_role(Role.PRODUCER, without=("+script|load",)), give_up_s=0.2) as wheel:
        with SyncWheel(fresh.url) as other:
            other.enqueue("mail.send", queue="other")
        wheel.enqueue("mail.send")
    with fresh.client() as admin:
        assert set(admin.hkeys("zw:queues")) == {b"default", b"other"}


@pytest.mark.parametrize("act", ["pause", "set_cap", "schedule"])
def test_an_act_that_is_refused_leaves_no_queue_behind(as_role: AsRole, fresh: RedisServer, act: str) -> None:
    with SyncWheel(as_role(Role.OPERATOR, without=("+hset",)), give_up_s=0.2) as wheel:
        acts: dict[str, Callable[[], object]] = {
            "pause": lambda: wheel.pause("default"),
            "set_cap": lambda: wheel.set_cap("default", 5),
            "schedule": lambda: wheel.add_schedule(wheel.new_schedule("s", "* * * * *", "mail.send")),
        }
        with pytest.raises(BrokerRefused):
            acts[act]()
    with fresh.client() as admin:
        assert admin.keys("*") == []


@pytest.mark.raw_keys
def test_a_list_of_queues_of_another_type_costs_no_job(fresh: RedisServer) -> None:
    with fresh.client() as admin:
        admin.set("zw:queues", "another program's")
    with SyncWheel(fresh.url, give_up_s=0.2) as wheel:
        wheel.enqueue("mail.send")
    with fresh.client() as admin:
        assert admin.hlen(KEYS.jobs) == 1


@pytest.mark.anyio
async def test_a_worker_that_lacks_a_right_says_which_at_the_start(as_role: AsRole, fresh: RedisServer) -> None:
    for command in commands(Role.WORKER):
        if command in ("evalsha", "script|load", "info"):
            continue  # Redis itself names these
        async with Wheel(as_role(Role.WORKER, without=(f"+{command}",)), give_up_s=0.2) as wheel:
            with pytest.raises(BrokerRefused) as refused:
                async with running(wheel):
                    pass
        assert f"+{command}" in str(refused.value) or command in ("hsetnx",), (command, str(refused.value))
        assert "zwheel acl" in str(refused.value)
    async with Wheel(as_role(Role.WORKER, queues=("default",)), give_up_s=0.2) as wheel:
        with pytest.raises(BrokerRefused, match=r"~\{zw:other:0\}:\*.*zwheel acl worker --queue default --queue other"):
            async with running(wheel, queues=("default", "other")):
                pass


@pytest.mark.anyio
@pytest.mark.parametrize("lost", ["+zadd", "+hset", "+set", "+zrem", "+evalsha", "~{zw:default:0}:*"])
async def test_a_right_that_is_lost_at_run_time_loses_no_job(
    as_role: AsRole, fresh: RedisServer, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log()
    url = as_role(Role.WORKER)
    taken = "resetkeys" if lost.startswith("~") else lost.replace("+", "-")
    with fresh.client() as admin:
        async with Wheel(url) as wheel, Wheel(fresh.url) as other:

            @wheel.task(name="work")
            async def work() -> None:
                pass

            async with running(wheel, log):
                await other.enqueue("work", id="before")
                await log.seen("done", "before")
                admin.execute_command("ACL", "SETUSER", "user0", taken)
                caplog.clear()
                for n in range(20):
                    await other.enqueue("work", id=f"job-{n}", keep=60)
                await eventually(lambda: _said(caplog), bool, 20)
                back = [lost] if not lost.startswith("~") else [lost, "%R~{zw:*}:schedules", "~zw:queues"]
                admin.execute_command("ACL", "SETUSER", "user0", *back)
                await log.until(lambda: {e["job"] for e in log.of("done")} >= {f"job-{n}" for n in range(20)}, 30)
            assert len(await _said(caplog)) <= 3
            states = [(await other.get(f"job-{n}")) for n in range(20)]
            assert all(job is not None and job.state == "done" and job.attempt == 1 for job in states)


async def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [told for told in caplog.messages if "waiting for Redis" in told]


def test_every_line_of_the_page_makes_a_user(fresh: RedisServer, command: Command) -> None:
    page = (Path(__file__).parents[2] / "docs" / "redis-users.md").read_text(encoding="utf-8")
    lines = [line.split() for line in page.split("```sh\n")[1].split("```")[0].splitlines()]
    with fresh.client() as admin:
        for words in lines:
            code, told = command(fresh.url, *words[1:])
            assert code == 0
            made = told.split()[2:] if "--json" not in words else [(d := json.loads(told))["user"], *d["rules"]]
            admin.execute_command("ACL", "SETUSER", *made)
            admin.execute_command("ACL", "DELUSER", made[0])
    assert len(lines) > 4


@pytest.mark.anyio
async def test_many_queues_are_asked_about_in_bounded_calls(as_role: AsRole, fresh: RedisServer) -> None:
    names = [f"q{n}" for n in range(250)]
    async with Wheel(as_role(Role.WORKER, queues=tuple(names[:-20]))) as wheel:
        with pytest.raises(BrokerRefused, match=r"lacks ~\{zw:q230:0\}:\* .* and 8 more"):
            async with running(wheel, queues=tuple(names)):
                pass


def test_a_worker_without_a_right_ends_with_the_code_of_a_refusal(
    as_role: AsRole, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "tasks_of_acl.py").write_text("from zwheel import Wheel\nwheel = Wheel()\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "zwheel.cli", "worker", "tasks_of_acl:wheel"], cwd=tmp_path, capture_output=True,
        env={**os.environ, "ZWHEEL_URL": as_role(Role.WORKER, without=("+zadd",))}, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "this Redis user lacks +zadd: `zwheel acl worker --queue default` prints the rules" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "role"),
    [
        (("job", "ls", "-q", "emails"), "reader"),
        (("enqueue", "t", "-q", "emails"), "producer"),
        (("queue", "pause", "emails", "--create"), "operator"),
    ],
)
def test_a_refusal_names_the_role_and_the_queue_of_the_rules_that_are_missing(
    as_role: AsRole, command: Command, words: tuple[str, ...], role: str
) -> None:
    url = as_role(Role.READER, Role.PRODUCER, Role.OPERATOR, queues=("other",))
    code, said = command(url, *words)
    assert code == 6
    assert f"`zwheel acl {role} --queue emails` prints the rules" in said


def test_a_row_says_once_why_several_keys_of_a_queue_cannot_be_read(
    as_role: AsRole, command: Command, fresh: RedisServer
) -> None:
    with SyncWheel(fresh.url) as wheel:
        wheel.enqueue("t", queue="emails")
    _, said = command(as_role(Role.READER, queues=("other",)), "queue", "show", "emails")
    assert said.count("prints the rules") == 1, said
    assert "days, processing, dead, done, meta, workers" in said


def test_a_worker_that_is_refused_later_names_all_its_queues() -> None:
    assert command_after("claim", ["{shop:emails:0}:meta"]) == "zwheel acl worker --queue emails --namespace shop"
    assert command_after("HGET", ["{zw:emails:0}:jobs", "a"]) == "zwheel acl reader --queue emails"
    assert command_after("DEBUG", []) == "zwheel acl"
    assert command_for(Role.WORKER, "zw", ["a", "b"]) == "zwheel acl worker --queue a --queue b"


def test_rules_for_the_user_default_come_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """They took every right from the administrator who pasted them."""
    assert run(["acl", "worker", "--user", "default"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("ACL SETUSER default ")
    assert "these rules take all other rights from the user default" in err
    run(["acl", "worker"])
    assert capsys.readouterr().err == ""
