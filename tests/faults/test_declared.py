"""Schedules in code: services of one name, versions that follow each other, and what living workers declare."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.workers.harness import eventually, one_kind, running
from zwheel import Wheel
from zwheel.calls import Session
from zwheel.workers import declarations

pytestmark = [pytest.mark.anyio, one_kind]

FAR = "0 0 1 1 *"
Service = Callable[..., Wheel]


@pytest.fixture
def service(wheel: Wheel) -> Service:
    """Makes the application of a service: its name, its owner, and its schedules by queue."""
    url, namespace = wheel.resolve()

    def make(app: str = "app:wheel", *, owner: str | None = None, when: str = FAR, **schedules: str) -> Wheel:
        made = Wheel(url, namespace=namespace, owner=owner)
        made.app = app
        for name, queue in schedules.items():

            @made.cron(when, name=name)
            @made.task(name=name, queue=queue)
            async def task() -> None: ...

        return made

    return make


async def owners(wheel: Wheel) -> dict[str, str]:
    return {info.name: info.owner for info in await wheel.schedules()}


async def start(*apps: Wheel) -> None:
    """Start a worker of each application and end it again."""
    for app in apps:
        async with running(app, queues=("default",)):
            pass


async def test_two_services_of_one_name_keep_their_schedules(wheel: Wheel, service: Service) -> None:
    shop, blog = service(report="shop", backup="shop"), service(news="blog")
    await start(shop, blog, shop, blog)
    assert await owners(wheel) == {
        "report": "app:wheel@shop", "backup": "app:wheel@shop", "news": "app:wheel@blog",
    }  # fmt: skip


async def test_what_a_version_declares_no_more_is_removed(wheel: Wheel, service: Service) -> None:
    without = service()

    @without.task(name="report", queue="shop")
    async def report() -> None: ...

    await start(service(report="shop"), without)
    assert await owners(wheel) == {}


async def test_services_of_one_name_and_one_queue_that_start_in_turn_keep_their_schedules(
    wheel: Wheel, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, blog = service(report="default"), service(news="default")
    await start(shop, blog, shop)
    assert sorted(await owners(wheel)) == ["news", "report"]
    # A service that stays away is taken for code that was deleted.
    monkeypatch.setattr(declarations, "AGAIN_S", 0.05)
    async with running(shop, queues=("default",)):
        await eventually(lambda: owners(wheel), lambda found: sorted(found) == ["report"])


async def test_an_owner_can_be_said_and_takes_over_what_the_application_had(wheel: Wheel, service: Service) -> None:
    await start(service(report="shop", old="shop"), service(owner="billing", report="shop"))
    assert await owners(wheel) == {"report": "billing", "old": "app:wheel@shop"}
    later = service(owner="billing")
    later.task(name="report")(print)
    await start(later)
    assert await owners(wheel) == {"old": "app:wheel@shop"}


async def test_a_schedule_follows_its_task_to_another_queue(wheel: Wheel, service: Service) -> None:
    await start(service(report="shop"), service(report="orders"))
    assert [(info.name, info.queue, info.owner) for info in await wheel.schedules()] == [
        ("report", "orders", "app:wheel@orders")
    ]


async def test_what_another_living_service_declares_is_not_removed(
    wheel: Wheel, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(declarations, "AGAIN_S", 0.05)
    caplog.set_level(logging.INFO, "zwheel.worker")
    async with running(service(report="default"), queues=("default",)):
        await beaten(wheel, "report")
        async with running(service(news="default"), queues=("default",)):
            assert await owners(wheel) == dict.fromkeys(("report", "news"), "app:wheel@default")
            assert any("may be another service's" in r.getMessage() for r in caplog.records)
    # Once that service is gone, its schedules count as schedules that this application declares no more.
    async with running(service(news="default"), queues=("default",)):
        await eventually(lambda: owners(wheel), lambda found: sorted(found) == ["news"])


async def test_an_old_version_does_not_write_its_schedules_again(
    wheel: Wheel, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarations, "AGAIN_S", 0.05)
    tries = asyncio.Event()
    sync = declarations.Declarations.sync

    async def counted(self: Any, store: Any, again: Any = None) -> Any:
        done = await sync(self, store, again)
        if again is not None:
            tries.set()
        return done

    monkeypatch.setattr(declarations.Declarations, "sync", counted)
    async with running(service(other="default"), queues=("default",)):
        await beaten(wheel, "other")
        # It tries again and again to remove what the first one declares.
        async with running(service(report="default"), queues=("default",)):
            await beaten(wheel, "report")
            async with running(service(report="default", when="0 0 2 2 *"), queues=("default",)):
                for _ in range(3):
                    tries.clear()
                    await tries.wait()
                assert (await wheel.schedule("report")).definition.when() == service(
                    report="default", when="0 0 2 2 *"
                ).declared["report"].when()


async def test_a_name_of_another_owner_is_refused_and_the_others_are_written(
    wheel: Wheel, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    await wheel.add_schedule(wheel.new_schedule("report", FAR, "t"))
    await start(service(report="shop", backup="shop"))
    assert await owners(wheel) == {"report": "", "backup": "app:wheel@shop"}
    assert any("report are not written" in record.getMessage() for record in caplog.records)


async def beaten(wheel: Wheel, name: str) -> None:
    """Wait until a worker has said that it declares a schedule."""
    _, namespace = wheel.resolve()
    keys = Session(namespace).keys("default")

    async def told() -> bool:
        rows = await wheel._drive(lambda session: rows_of(keys.workers))
        return any(name in json.dumps(json.loads(row).get("declares", {})) for row in rows)

    await eventually(told, bool)


def rows_of(key: str) -> Any:
    (raw,) = yield (("HVALS", key),)
    return raw
