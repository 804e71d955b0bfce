"""A queue's keys: what contradicts itself is found, explained, repaired when a person agrees, and counted."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from tests.doctor.conftest import Doctor
from tests.endings import bury
from tests.servers import RedisServer
from tests.skew.hand import QUEUE, Hand
from zwheel import SyncWheel
from zwheel.payload.codec import Codec
from zwheel.times import DAY_MS, day_of

DIGEST = "0123456789abcdef" * 2


def contents(client: redis.Redis) -> dict[bytes, object]:
    """The whole database, but for replays."""
    found: dict[bytes, object] = {}
    for key in client.scan_iter():
        kind = client.type(key)
        if kind == b"hash":
            found[key] = client.hgetall(key)
        elif kind == b"zset":
            found[key] = client.zrange(key, 0, -1, withscores=True)
        elif kind == b"list":
            found[key] = client.lrange(key, 0, -1)
    return found


def test_a_queue_in_order_is_told_so_in_one_line(hand: Hand, client: redis.Redis, doctor: Doctor, url: str) -> None:
    hand.enqueue("a", "b", "c", dedup="")
    held = hand.claim(2)
    hand.end(bury, [("a", held["a"], b"{}\n")], most_dead=10)
    told = doctor(url)
    assert told.code == 0
    assert told.of("places") == {
        "check": "places", "level": "ok", "queue": QUEUE, "text": "schema 1, 3 jobs, each in its place", "cure": None,
    }  # fmt: skip


def test_a_queue_that_was_never_used_is_no_finding_but_its_line(client: redis.Redis, doctor: Doctor, url: str) -> None:
    assert doctor(url).of("places")["text"] == "not used yet"


def damage(hand: Hand, client: redis.Redis) -> None:
    """Everything that can contradict itself, at once."""
    keys = hand.keys
    hand.enqueue("orphan", "stray", "twice")
    hand.enqueue("runs")
    bucket = keys.wheel(day_of(hand.now_ms()))
    client.hdel(keys.jobs, "orphan")
    client.zrem(bucket, "stray")
    client.zadd(keys.done, {"twice": 5})
    client.zadd(keys.dead, {"ghost": 5})
    client.hset(keys.jobs, "newer", b"3" + b"s" * 60)
    client.hset(keys.dedup, DIGEST, "nobody")
    client.zadd(keys.days, {"20200101": 20200101})
    later = hand.now_ms() + 3 * DAY_MS
    client.zadd(keys.wheel(day_of(later)), {"far": later})
    with SyncWheel(hand.store.url, namespace="zw") as wheel:
        wheel.enqueue("mail.send", queue=QUEUE, id="hidden", delay=5 * 86_400)
    client.zremrangebyrank(keys.days, -1, -1)
    client.hdel("zw:queues", QUEUE)


def test_every_contradiction_is_found_with_its_meaning_and_its_cure(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    damage(hand, client)
    told = doctor(url)
    assert told.code == 6
    texts = {(f["check"], f["level"]): f["text"] for f in told.findings if f.get("queue") == QUEUE}
    assert set(texts) == {
        ("listed", "warning"), ("orphans", "warning"), ("places", "problem"), ("days", "problem"),
        ("days", "warning"), ("dedup", "warning"), ("versions", "warning"), ("unserved", "warning"),
    }  # fmt: skip
    assert "far, ghost, orphan" in texts["orphans", "warning"]
    broken = [f["text"] for f in told.findings if f.get("check") == "places"]
    assert any("stray, twice" in text for text in broken)
    assert any("newer" in text for text in broken)
    assert all(f["cure"] for f in told.findings if f.get("level") not in (None, "ok"))


def test_a_repair_asks_first_then_puts_all_right_and_counts_it(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    damage(hand, client)
    before = contents(client)
    refused = doctor(url, "--repair")
    assert refused.code == 6
    assert "--yes" in refused.err
    assert contents(client) == before, "nothing was changed"
    told = doctor(url, "--repair", "--yes")
    assert told.code == 0, told.findings
    (done,) = [f for f in told.findings if "repaired" in f]
    assert done == {"queue": QUEUE, "repaired": 10}
    assert int(client.hget(hand.keys.meta, "orphans") or 0) == 7
    again = doctor(url)
    assert again.code == 0
    assert {f["check"] for f in again.findings if f.get("queue") == QUEUE} == {"places", "unserved", "versions"}
    assert sorted(hand.claim()) == ["runs", "stray", "twice"]
    with SyncWheel(url, namespace="zw") as wheel:
        assert wheel.queues() == [QUEUE]
        assert wheel.queue(QUEUE).scheduled == 1
        assert [job.id for job in wheel.dead(QUEUE)] == ["newer"]
    nothing = doctor(url, "--repair", "--yes")
    assert nothing.code == 0
    assert [f for f in nothing.findings if "repaired" in f] == []


def test_a_queue_whose_meta_was_deleted_is_a_problem_until_it_is_repaired(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    hand.enqueue("a")
    client.delete(hand.keys.meta)
    hand.enqueue("b")
    assert client.hget(hand.keys.meta, "schema") is None, "an enqueue does not hide the damage"
    told = doctor(url)
    assert told.code == 6
    assert told.of("schema")["level"] == "problem"
    assert "pause" in told.of("schema")["text"]
    assert doctor(url, "--repair", "--yes").code == 0
    assert client.hget(hand.keys.meta, "schema") == b"1"
    assert sorted(hand.claim()) == ["a", "b"]


def test_a_queue_of_another_schema_is_a_problem_and_never_touched(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    hand.enqueue("a")
    client.hset(hand.keys.meta, "schema", "2")
    client.hdel(hand.keys.jobs, "a")
    before = contents(client)
    told = doctor(url, "--repair", "--yes")
    assert told.code == 6
    assert "schema 2" in told.of("schema")["text"]
    assert contents(client) == before


def test_only_the_named_queue_is_looked_at(hand: Hand, client: redis.Redis, doctor: Doctor, url: str) -> None:
    hand.enqueue("a")
    client.hdel(hand.keys.jobs, "a")
    client.hset("zw:queues", "other", "1")
    told = doctor(url, "--queue", "other")
    assert {f["queue"] for f in told.findings if f.get("queue")} == {"other"}
    assert told.code == 0


def test_a_key_of_another_program_under_our_name_is_a_problem_and_no_traceback(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    client.set(hand.keys.jobs, "mine")
    told = doctor(url)
    assert told.code == 6
    assert told.of("places")["level"] == "problem"
    assert "Traceback" not in told.err
    client.delete(hand.keys.jobs)


def test_other_namespaces_on_the_server_are_named(client: redis.Redis, doctor: Doctor, url: str) -> None:
    with SyncWheel(url, namespace="zw") as one, SyncWheel(url, namespace="zw2") as other:
        one.enqueue("mail.send")
        other.enqueue("mail.send")
    told = doctor(url)
    assert "zw2" in told.of("keyspace")["text"]
    assert {f["queue"] for f in told.findings if f.get("queue")} == {QUEUE, "default"}
    client.flushall()


def test_thousands_of_jobs_over_many_days_are_looked_at_in_pages(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    with SyncWheel(url, namespace="zw") as wheel:
        jobs = [wheel.new_job("mail.send", queue=QUEUE, id=f"job-{n:04d}", delay=n * 3600) for n in range(1500)]
        wheel.enqueue_many(jobs)
    assert doctor(url).of("places")["text"] == "schema 1, 1,500 jobs, each in its place"
    keys = hand.keys
    lost = [f"job-{n:04d}" for n in range(0, 1500, 2)]
    client.hdel(keys.jobs, *lost)
    strays = [f"job-{n:04d}" for n in range(1, 1500, 4)]
    for key in list(client.scan_iter(match="*:wheel:*")):
        client.zrem(key, *strays)
    told = doctor(url, "--repair", "--yes")
    assert told.code == 0
    with SyncWheel(url, namespace="zw") as wheel:
        assert wheel.queue(QUEUE).scheduled == 750
    assert int(client.hget(keys.meta, "orphans") or 0) == len(lost) + len(strays)


def test_jobs_that_move_while_they_are_looked_at_are_no_finding(
    hand: Hand, fresh: RedisServer, client: redis.Redis, url: str
) -> None:
    """The first look sees a set and then records that changed since: the script decides, and finds nothing wrong."""
    from zwheel.doctor import Health, check_queue

    hand.enqueue("a", "b", "c")
    steps = check_queue(hand.session, QUEUE)
    ask = next(steps)
    moved = False
    health: list[Health] = []
    try:
        while True:
            replies = hand.store.send(ask)  # type: ignore[arg-type]
            if not moved and any(isinstance(word, tuple) and word[0] == "ZSCAN" for word in ask):  # type: ignore[union-attr]
                moved = True
                held = hand.claim()
                assert sorted(held) == ["a", "b", "c"]
                hand.complete({"a": held["a"]})
            ask = steps.send(replies)
    except StopIteration as end:
        health = [end.value]
    assert moved
    assert health[0].to_mend == 0
    # The hand that holds them is on no list of workers.
    assert [(str(f.level), f.check) for f in health[0].findings] == [("ok", "places"), ("warning", "unserved")]


def test_every_value_that_cannot_be_is_found_and_mended(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    keys, now = hand.keys, hand.now_ms()
    bucket = keys.wheel(day_of(now))
    year = 365 * DAY_MS
    hand.enqueue("below", "never", "runs", "dies")
    held = hand.claim(1)
    (runs,) = held
    wrong: Any = {job: score for job, score in (("below", -5), ("never", float("inf"))) if job != runs}
    client.zadd(bucket, wrong)
    client.zadd(keys.processing, {runs: now + year})
    client.hset(keys.jobs, b"\xff\xfe", _record(client, keys.jobs, "dies"))
    odd: Any = {b"\xff": 1, "abc": 2}
    client.zadd(keys.days, odd)
    client.hset(
        keys.meta, mapping={"grace": now + year, "keeper_end": "inf", "second_end": "abc", "cap": "-3", "epoch": "é"}
    )
    client.rpush(keys.wake, *["1"] * 500)
    client.hset(keys.schedules, mapping={"lost": _schedule("a"), "off": _schedule("p"), "newer": b"2" + b"a" * 60})
    due: Any = {"off": 1, "ghost": 1, b"\xff": 1}
    client.zadd(keys.schedules_due, due)
    told = doctor(url)
    assert told.code == 6
    assert {"places", "times", "days", "meta", "wake", "schedules", "versions"} <= set(told.levels())
    assert "grace, keeper_end, second_end, cap, epoch" in told.of("meta")["text"]
    assert "newer" in next(f["text"] for f in told.findings if f.get("check") == "versions")
    assert all(f["text"].isprintable() for f in told.findings if "text" in f)
    doctor(url, "--repair", "--yes")
    again = doctor(url)
    assert [f for f in again.findings if f.get("level") == "problem"] == []
    assert {f["check"] for f in again.findings if f.get("level") == "warning" and f.get("queue") == QUEUE} == {
        "unserved",
        "versions",
    }
    assert client.zrange(keys.days, 0, -1) == [day_of(now).encode()]
    assert set(client.zrange(bucket, 0, -1)) | {runs.encode()} == {b"below", b"never", b"runs", b"dies", b"\xff\xfe"}
    assert set(client.zrange(keys.schedules_due, 0, -1)) == {b"lost"}
    assert client.llen(keys.wake) <= 2
    assert float(client.zscore(keys.processing, runs) or 0) < now + DAY_MS


def test_a_clock_that_was_remembered_far_ahead_is_found_and_mended(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    keys = hand.keys
    hand.enqueue("a")
    ahead = (hand.now_ms() + 365 * DAY_MS) * 1000
    client.hset(keys.meta, "clock", ahead)
    assert "clock" in doctor(url).of("meta")["text"]
    doctor(url, "--repair", "--yes")
    assert int(client.hget(keys.meta, "clock") or 0) < ahead
    assert "meta" not in doctor(url).levels()


def test_what_is_kept_for_a_group_of_workers_is_looked_at_although_none_of_it_lives(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    keys, group, other = hand.keys, "0" * 16, "f" * 16
    hand.enqueue("a")
    until = hand.now_ms() + 50_000
    void: Any = {f"gone {1:015d} {1:016d}": until, b"\xff\xfe": until, "a": until}
    client.zadd(keys.offered(group), {**void, f"a {1:015d} {1:016d}": until})
    client.rpush(keys.call(group), *["1"] * 500)
    client.set(keys.offered(other), "x")
    told = doctor(url)
    texts = [f["text"] for f in told.findings if f.get("check") == "offers"]
    assert len(texts) == 3
    assert any("3 notes" in text for text in texts)
    assert all(text.isprintable() for text in texts)
    client.delete(keys.offered(other))
    doctor(url, "--repair", "--yes")
    assert client.zrange(keys.offered(group), 0, -1) == [f"a {1:015d} {1:016d}".encode()]
    assert client.llen(keys.call(group)) == 1
    assert "offers" not in doctor(url).levels()
    for start in range(0, 30_000, 1000):
        client.zadd(keys.offered(group), {f"gone{n} {1:015d} {1:016d}": until for n in range(start, start + 1000)})
    assert doctor(url).levels()["offers"] == "warning"
    doctor(url, "--repair", "--yes")
    assert "offers" not in doctor(url).levels()


def _record(client: redis.Redis, key: str, job: str) -> bytes:
    return client.hget(key, job) or b""  # type: ignore[return-value]


def _schedule(letter: str) -> bytes:
    """A schedule of this version."""
    given = '{"kind":{"cron":"@daily"},"name":"NAME","payload":"AQCSkIA=","queue":"q","task":"t"}'
    name = {"a": "lost", "p": "off"}[letter]
    return f'1{letter}{5:016d}\n{{"cursor":5,"next":1}}\n{given.replace("NAME", name)}'.encode()


def test_a_list_of_queues_that_another_program_wrote_is_a_problem_and_hides_no_queue(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    hand.enqueue("a")
    client.delete("zw:queues")
    client.set("zw:queues", "mine")
    told = doctor(url)
    assert told.code == 6
    assert told.of("keyspace")["level"] == "problem"
    assert told.of("listed")["queue"] == QUEUE
    client.delete("zw:queues")


@pytest.mark.raw_keys
def test_keys_of_no_known_kind_are_counted_named_and_left_alone(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    hand.enqueue("a")
    strange = [
        f"{hand.keys.tag}:jobz", f"{hand.keys.tag}:wheel:20261399", f"{{zw:{QUEUE}:1}}:jobs", f"{{zw:{QUEUE}}}:jobs",
        "zw:queue", "{zw:-x:0}:jobs", "{zw:" + "q" * 200 + ":0}:jobs", f"{hand.keys.tag}:jobs:\x1b[31m\n",
    ]  # fmt: skip
    for key in strange:
        client.set(key, "x")
    client.set("zebra:1", "another program's")
    client.set("{other}:1", "another program's")
    before = contents(client)
    told = doctor(url, "--repair", "--yes")
    assert told.code == 0
    (found,) = [f for f in told.findings if f.get("check") == "keyspace"]
    assert found["level"] == "ok"
    assert found["text"].startswith("8 keys under this namespace's prefix are of no kind that this version knows (")
    assert "\x1b" not in found["text"] and len(found["text"]) < 600
    assert contents(client) == before
    assert client.exists(*strange) == len(strange)


@pytest.mark.raw_keys
def test_the_walk_over_the_keys_of_a_server_has_an_end(
    client: redis.Redis, doctor: Doctor, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zwheel.doctor.keyspace._SCAN", 10)
    monkeypatch.setattr("zwheel.doctor.keyspace._MOST_STEPS", 5)
    monkeypatch.setattr("zwheel.doctor.keyspace._MOST_UNKNOWN", 20)
    client.mset({f"zw:{n}": "x" for n in range(1000)})
    client.mset({f"{{n{n}:q:0}}:jobs": "x" for n in range(1000)})
    texts = [f["text"] for f in doctor(url).findings if f.get("check") == "keyspace"]
    assert texts[0].startswith("only 50 keys of this server were looked at")
    assert all(len(text) < 600 for text in texts)


def test_large_bodies_are_held_against_the_records_that_ask_for_them(
    hand: Hand, client: redis.Redis, doctor: Doctor, url: str
) -> None:
    keys = hand.keys
    with SyncWheel(url, namespace="zw", codec=Codec(compress_over=None)) as wheel:
        for name in ("whole", "lost", "cut"):
            wheel.enqueue("mail.send", args=["x" * 5_000], queue=QUEUE, id=name, delay=60)
    assert client.hlen(keys.bodies) == 3
    assert "no kind" not in str(doctor(url).findings), "their key is known"
    assert doctor(url).of("places")["text"] == "schema 1, 3 jobs, each in its place"
    client.hdel(keys.bodies, "lost")
    client.hset(keys.bodies, "cut", b"half of it")
    client.hset(keys.bodies, "nobody's", b"y" * 2_000)
    told = doctor(url)
    assert told.code == 6
    texts = {f["level"]: f for f in told.findings if f.get("check") == "bodies"}
    assert "1 large body without a job" in texts["warning"]["text"] and "nobody's" in texts["warning"]["text"]
    assert "2 jobs whose large bodies are gone" in texts["problem"]["text"] and "cut, lost" in texts["problem"]["text"]
    mended = doctor(url, "--repair", "--yes")
    assert [f["repaired"] for f in mended.findings if "repaired" in f] == [1]
    assert sorted(client.hkeys(keys.bodies)) == [b"cut", b"whole"]
    assert doctor(url).code == 6, "what is gone cannot be brought back"


def test_unserved_jobs_are_counted_over_all_shards_of_a_queue(fresh: RedisServer, doctor: Doctor) -> None:
    with SyncWheel(fresh.url, namespace="zw") as wheel:
        wheel.create_queue("orders", shards=3)
        wheel.enqueue_many(wheel.new_job("mail.send", queue="orders", delay=3_600) for _ in range(30))
    told = doctor(fresh.url)
    assert (told.of("unserved")["queue"], told.of("unserved")["text"]) == (
        "orders",
        "30 jobs on its wheel, and no live worker serves it",
    )
