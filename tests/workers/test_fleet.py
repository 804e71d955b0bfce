"""Who looks at a shard beside those that keep time: two, on whom all agree without a word, and every worker has its part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from zwheel.calls import Session
from zwheel.keys import shard_names
from zwheel.workers.fleet import FEW, WATCHERS, Fleet

SHARDS = shard_names("orders", 64)


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
