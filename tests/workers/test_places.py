"""The places of `process=True` jobs: a slot is lent while its job waits for one, and never more run than there are slots."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from zwheel.workers.claims import Slots
from zwheel.workers.places import Places

pytestmark = pytest.mark.anyio


def busy(slots: Slots, jobs: int) -> None:
    """So many claimed jobs were started."""
    slots.running = slots.held = jobs


async def waiting(places: Places, jobs: int, within_s: float = 30.0) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(places.take(within_s)) for _ in range(jobs)]
    await asyncio.sleep(0)
    return tasks


async def test_who_waits_lends_its_slot_and_has_it_again_with_the_place() -> None:
    slots, lent = Slots(4, 0), [0]

    def count() -> None:
        lent[0] += 1

    places = Places(1, slots, count)
    busy(slots, 3)
    assert await places.take(30)
    first, second = await waiting(places, 2)
    assert (slots.running, slots.held, lent) == (1, 1, [2])
    places.leave()
    # The job that left is counted until it has ended: its slot goes to no other job before the waiting job has its own.
    assert (slots.running, slots.held) == (2, 2)
    assert await first
    places.leave()
    assert await second
    assert (slots.running, slots.held) == (3, 3)
    places.leave()
    assert await places.take(0)


async def test_who_waits_in_vain_or_is_cancelled_has_its_slot_back_and_takes_no_place() -> None:
    slots = Slots(4, 0)
    places = Places(1, slots, lambda: None)
    busy(slots, 4)
    assert await places.take(30)
    (vain,) = await waiting(places, 1, within_s=0.01)
    assert not await vain
    cancelled, late = await waiting(places, 2)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    places.leave()
    # It gets the place in the moment in which it is cancelled: the place is free again.
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    assert (slots.running, slots.held) == (4, 4)
    assert await places.take(0)
    assert not (await waiting(places, 1))[0].done()


async def test_no_more_wait_than_there_are_slots() -> None:
    slots = Slots(2, 0)
    places = Places(1, slots, lambda: None)
    busy(slots, 6)
    assert await places.take(30)
    tasks = await waiting(places, 2)
    assert not await places.take(30)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_what_goes_back_comes_again_one_after_the_other_and_soon() -> None:
    places = Places(1, Slots(1, 0), lambda: None)
    away = [places.away_ms() for _ in range(40_000)]
    assert min(away) >= 200
    assert max(away) <= 10_000
    # They come in groups, whose time does not move while it is told.
    assert all(later >= earlier - 25 or later > 9_000 for earlier, later in pairwise(away))


async def test_once_places_get_free_quickly_more_may_wait_and_what_goes_back_comes_sooner() -> None:
    slots = Slots(2, 0)
    places = Places(1, slots, lambda: None)
    busy(slots, 1000)
    assert await places.take(30)
    for _ in range(20):
        await turn(places)
    tasks = await waiting(places, 20)
    assert not any(task.done() for task in tasks), "they were sent away after two of them"
    assert places.away_ms() < 200
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def turn(places: Places) -> None:
    """One waits, and gets the place."""
    (task,) = await waiting(places, 1)
    places.leave()
    assert await task


async def test_a_worker_in_which_more_wait_than_may_has_no_room_for_a_moment_and_not_again_at_once() -> None:
    slots, looked = Slots(2, 0), asyncio.Event()
    places = Places(1, slots, lambda: None)
    busy(slots, 5)
    assert await places.take(30)
    tasks = await waiting(places, 2)
    assert not slots.yields(), "as many wait as may, and no job more came"
    assert not await places.take(30)
    room = slots.room()
    assert slots.yields()
    assert slots.room() == 0
    slots.when_room(looked.set)
    async with asyncio.timeout(10):
        await looked.wait()
    assert slots.room() == room
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
