"""Who looks at a shard beside those that keep time: two, on whom all agree without a word, and every worker has its part."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from zwheel.calls import Session
from zwheel.errors import BrokerUnavailable
from zwheel.keys import ShardKeys, shard_names
from zwheel.workers.fleet import FEW, WATCHERS, Fleet

SHARDS = shard_names("orders", 64)
KEYS = [ShardKeys.of("zw", name) for name in SHARDS]


def knowing(names: list[bytes]) -> Fleet:
    fleet = Fleet("list")
    fleet.know(names, len(names))
    return fleet


def named(count: int) -> list[bytes]:
    return [b"%08x" % (number * 2_654_435_761 % 2**32) for number in range(count)]


@pytest.mark.parametrize("count", [2, 3, FEW])
def test_in_a_small_fleet_all_watch(count: int) -> None:
    names = named(count)
    fleet = knowing(names)
    for shard in SHARDS:
        assert all(fleet.watches(shard, name, (names[0], names[1])) for name in names)


@pytest.mark.parametrize("count", [FEW + 1, 100, 1_000])
def test_each_shard_has_two_watchers_that_do_not_keep_time(count: int) -> None:
    names = named(count)
    fleet = knowing(names)
    for shard in SHARDS:
        for keepers in ((None, None), (names[0], names[1])):
            watchers = [name for name in names if fleet.watches(shard, name, keepers)]
            assert len(watchers) == WATCHERS
            assert not {*watchers} & {*keepers}


def test_the_shards_are_spread_over_the_workers() -> None:
    names = named(100)
    fleet = knowing(names)
    load = Counter(name for shard in SHARDS for name in names if fleet.watches(shard, name, ()))
    assert sum(load.values()) == WATCHERS * len(SHARDS)
    assert max(load.values()) <= 8


def test_when_a_worker_goes_only_its_shards_get_another() -> None:
    names = named(2 * FEW)
    before, after = knowing(names), knowing(names[1:])
    for shard in SHARDS:
        old = {name for name in names if before.watches(shard, name, ())}
        new = {name for name in names if after.watches(shard, name, ())}
        assert old == new if names[0] not in old else old - {names[0]} < new


def test_a_worker_that_knows_nobody_yet_watches() -> None:
    assert Fleet("list").watches("orders", b"self", (b"keeper", b"second"))


class Listed:
    """A store with a list of workers, of which some live."""

    session = Session("zw")

    def __init__(self, names: Sequence[bytes], living: Sequence[bytes]) -> None:
        self.rows = dict.fromkeys(names, b"no row")
        now_ms = self.session.clock.now_ms()
        self.rows |= {name: json.dumps({"beat": now_ms, "lease": 30_000}).encode() for name in living}
        self.rows |= {
            name: json.dumps({"beat": now_ms - 600_000, "lease": 30_000}).encode()
            for name in names[::2] if name not in living
        }  # fmt: skip
        self.asked: list[str] = []

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        ((word, _, *names),) = commands
        self.asked.append(word)
        return [list(self.rows)] if word == "HKEYS" else [[self.rows[name] for name in names]]


@pytest.mark.anyio
@pytest.mark.parametrize(("listed", "alive"), [(100, 40), (1_000, 500)])
async def test_the_dead_that_are_still_listed_neither_count_nor_watch(listed: int, alive: int) -> None:
    names = named(listed)
    living = names[1 :: listed // alive][:alive]
    store: Any = Listed(names, living)
    fleet = Fleet("list")
    await fleet.refresh(store)
    await fleet.refresh(store)
    assert store.asked == ["HKEYS", "HMGET"], "the list is read seldom"
    assert alive * 0.7 <= fleet.size <= alive * 1.3
    for shard in SHARDS:
        watchers = {name for name in names if fleet.watches(shard, name, ())}
        assert (len(watchers), watchers - {*living}) == (WATCHERS, set())


def sparing(names: list[bytes]) -> list[Fleet]:
    fleets = [Fleet("list", name) for name in names]
    for fleet in fleets:
        fleet.know(names, len(names))
    return fleets


@pytest.mark.parametrize("count", [4, 21, 100])
def test_where_a_fleet_spares_one_sees_to_each_shard_and_two_others_listen_at_least(count: int) -> None:
    fleets = sparing(named(count))
    for keys in KEYS:
        seers = [fleet for fleet in fleets if fleet.sees_to(keys.name)]
        listeners = [fleet for fleet in fleets if fleet.listens(keys)]
        assert (len(seers), len(listeners) >= 2) == (1, True)
        assert seers[0] not in listeners


@pytest.mark.parametrize(("count", "most"), [(100, 4.5), (1_000, 4.1)])
def test_a_worker_of_a_large_fleet_listens_to_four_shards_or_a_few_more(count: int, most: float) -> None:
    fleets = sparing(named(count))
    listens = [sum(fleet.listens(keys) for keys in KEYS) for fleet in fleets]
    assert min(listens) >= 4
    assert (sum(listens) / count <= most, max(listens) <= 9) == (True, True)


def test_of_two_workers_both_listen_and_one_alone_does_all() -> None:
    for fleets in (sparing(named(2)), sparing(named(1))):
        for fleet in fleets:
            fleet.size = 200
            assert all(fleet.listens(keys) for keys in KEYS)
        assert all(sum(fleet.sees_to(keys.name) for fleet in fleets) == 1 for keys in KEYS)


@pytest.mark.parametrize(
    ("size", "shards", "spares"), [(3, 64, False), (4, 64, True), (50, 4, False), (41, 5, True), (40, 5, False)]
)
def test_a_fleet_spares_where_workers_times_shards_are_many(size: int, shards: int, *, spares: bool) -> None:
    fleet = Fleet("list", b"self")
    fleet.know(named(size), size)
    assert fleet.spares(shards) is spares


def test_a_worker_that_knows_nobody_yet_listens_only_where_the_shards_are_few() -> None:
    fleet = Fleet("list", b"self")
    assert [fleet.listens(ShardKeys.of("zw", shard_names("orders", count)[0])) for count in (1, 4, 5)] == [
        True,
        True,
        False,
    ]


@pytest.mark.anyio
async def test_only_workers_that_know_the_same_tasks_share_the_shards_out() -> None:
    now_ms = Listed.session.clock.now_ms()
    names = named(60)
    store: Any = Listed(names, names)
    for number, name in enumerate(names):
        about = {"group": f"{number % 2:016x}", "tasks": ["t"]}
        store.rows[name] = json.dumps({"beat": now_ms, "lease": 30_000, **about}).encode()
    fleet = Fleet("list", names[0], f"{0:016x}")
    await fleet.refresh(store)
    assert (fleet.size, fleet.mixed) == (60, True)
    fleet.know(names[::2], 60)
    other = Fleet("list", names[2], f"{0:016x}")
    await other.refresh(store)
    assert all(fleet.sees_to(keys.name) <= (not other.sees_to(keys.name)) for keys in KEYS)


@pytest.mark.anyio
async def test_a_list_that_cannot_be_read_is_asked_for_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    class Down:
        asked = 0

        async def send(self, commands: object) -> list[Any]:
            self.asked += 1
            raise BrokerUnavailable("away")

    down: Any = Down()
    fleet = Fleet("list", b"self")
    now = time.monotonic()
    for later, asked in ((0.0, 1), (1.0, 1), (2.1, 2)):
        monkeypatch.setattr(time, "monotonic", lambda later=later: now + later)
        await fleet.refresh(down)
        assert down.asked == asked
    assert fleet.size == 0
