"""What the doctor says of a server whose clock jumped."""

from __future__ import annotations

import pytest
import redis

from tests.doctor.conftest import Doctor
from tests.lua.shard import record
from tests.servers import RedisServer
from tests.skew.hand import QUEUE
from zwheel.calls import Session
from zwheel.times import day_of

KEYS = Session("zw").keys(QUEUE)
HOUR = 3_600_000
NOW_US = 1_700_000_000_000_000
NOW = NOW_US // 1000


def put(client: redis.Redis, jump: str, **jobs: bytes) -> None:
    client.hset(KEYS.meta, mapping={"schema": "1", "epoch": "1", "jumps": "2", "jump": jump})
    for name, raw in jobs.items():
        client.hset(KEYS.jobs, name, raw)
        state, fire = raw[1:2], int(raw[6:21])
        place = {b"p": KEYS.processing, b"s": KEYS.wheel(day_of(fire)), b"x": KEYS.dead}[state]
        client.zadd(place, {name: fire})
        if state == b"s":
            client.zadd(KEYS.days, {day_of(fire): int(day_of(fire))})


def test_a_server_whose_clock_jumped_is_a_warning_with_how_far_and_when(
    doctor: Doctor, client: redis.Redis, fresh: RedisServer
) -> None:
    put(client, f"{NOW_US} -3600000 {NOW_US + HOUR * 1000}")
    found = doctor(fresh.url).of("jumps")
    assert (found["level"], found["queue"]) == ("warning", QUEUE)
    assert "2 times, the last time back by 3,600.0 s, to 2023-11-14 22:13:20 UTC" in found["text"]


def test_what_a_jump_ahead_and_back_started_before_its_time_is_listed(
    doctor: Doctor, client: redis.Redis, fresh: RedisServer
) -> None:
    ahead = NOW_US + HOUR * 1000
    put(
        client, f"{NOW_US} -3600000 {ahead}",
        early=record("p", attempt=1, fire=NOW + HOUR // 2, token=ahead - 5),
        died=record("x", attempt=1, fire=NOW + HOUR // 2, token=ahead),
        due=record("p", attempt=1, fire=NOW - 60_000, token=ahead - 7),
        after=record("p", attempt=1, fire=NOW + 50, token=ahead + 9),
        before=record("p", attempt=1, fire=NOW - 90_000, token=NOW_US - 80_000_000),
        waits=record("s", fire=NOW + 2 * HOUR, token=ahead - 3),
    )  # fmt: skip
    found = doctor(fresh.url).of("early")
    assert found["level"] == "warning"
    assert found["text"] == "2 jobs started before the time by this jump: died, early"


def test_what_a_jump_ahead_that_lasts_started_is_listed(
    doctor: Doctor, client: redis.Redis, fresh: RedisServer
) -> None:
    jumped = NOW_US + HOUR * 1000
    put(
        client, f"{jumped} 3600000 {jumped}",
        early=record("p", attempt=1, fire=NOW + HOUR // 2, token=jumped + 8),
        right=record("p", attempt=1, fire=NOW - 1, token=jumped + 9),
    )  # fmt: skip
    assert doctor(fresh.url).of("early")["text"] == "1 job started before the time by this jump: early"


def test_a_last_stamp_that_lies_ahead_since_a_jump_is_no_damage(
    doctor: Doctor, client: redis.Redis, fresh: RedisServer
) -> None:
    seconds, _ = client.time()
    ahead = (int(seconds) + 3_600) * 1_000_000
    put(client, f"{int(seconds) * 1_000_000} -3600000 {ahead}")
    client.hset(KEYS.meta, "clock", ahead + 70)
    levels = doctor(fresh.url).levels()
    assert "meta" not in levels
    assert levels["jumps"] == "warning"
    client.hset(KEYS.meta, "clock", ahead + 10**12)
    assert doctor(fresh.url).levels()["meta"] == "problem"


@pytest.mark.parametrize("jump", ["", "x", "nan -1 2", "1 2", "9" * 40 + " 1 1"])
def test_a_damaged_note_of_a_jump_is_none(doctor: Doctor, client: redis.Redis, fresh: RedisServer, jump: str) -> None:
    put(client, jump)
    assert "jumps" not in doctor(fresh.url).levels()
