"""Records and keys that this version does not know: set aside or refused by name, never guessed at and never lost."""

from __future__ import annotations

import json

import pytest

from tests.servers import RedisServer
from tests.skew.hand import QUEUE, Hand
from zwheel import SyncWheel
from zwheel.cli import run
from zwheel.errors import SchemaMismatch
from zwheel.job import JobState, Reason

#: What a newer release may do to a record: another version, a field that must be understood, a flag of the first version
#: that is not known here in either digit.
NEWER = {
    "version": lambda raw: b"3" + raw[1:],
    "field L": lambda raw: raw[:49] + b"01L00003ann" + raw[51:],
    "flag 8": lambda raw: b"1" + raw[1:49] + b"08" + raw[51:],
    "flag 10": lambda raw: b"1" + raw[1:49] + b"10" + raw[51:],
    "flag 87": lambda raw: b"1" + raw[1:49] + b"87" + raw[51:],
}


@pytest.fixture(params=list(NEWER))
def stored(request: pytest.FixtureRequest, old: Hand, fresh: RedisServer) -> bytes:
    """A due job whose record a newer version wrote, beside one of ours."""
    assert old.enqueue("newer", "ours") == [False, False]
    with fresh.client() as client:
        raw = client.hget(old.keys.jobs, "newer")
        assert isinstance(raw, bytes)
        made: bytes = NEWER[request.param](raw)
        client.hset(old.keys.jobs, "newer", made)
    return made


def still_there(old: Hand, server: RedisServer, stored: bytes) -> None:
    """Its record is untouched, and it is in the dead set only."""
    with server.client() as client:
        assert client.hget(old.keys.jobs, "newer") == stored
        assert client.zrange(old.keys.dead, 0, -1) == [b"newer"]
        assert client.zscore(old.keys.processing, "newer") is None


def test_claim_sets_it_aside_and_takes_the_rest(old: Hand, fresh: RedisServer, stored: bytes) -> None:
    assert list(old.claim()) == ["ours"]
    still_there(old, fresh, stored)
    assert old.claim() == {}


def test_reap_sets_it_aside(old: Hand, fresh: RedisServer, stored: bytes) -> None:
    with fresh.client() as client:
        (bucket,) = (key for key in client.scan_iter() if b":wheel:" in key)
        client.zrem(bucket, "newer")
        client.zadd(old.keys.processing, {"newer": 1})
    assert old.reap().looked_at == 1
    still_there(old, fresh, stored)


def test_it_is_shown_with_its_reason_and_no_redrive_loses_it(
    old: Hand,
    fresh: RedisServer,
    url: str,
    stored: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old.complete(old.claim())
    with SyncWheel(url, namespace="zw") as wheel:
        (dead,) = wheel.dead(QUEUE)
        assert (dead.id, dead.state, dead.reason) == ("newer", JobState.DEAD, Reason.UNDECODABLE)
        assert dead.body == stored
        assert wheel.redrive(QUEUE) == 0
        assert wheel.redrive(QUEUE, ["newer"]) == 0
        assert wheel.redrive(QUEUE, reason=Reason.UNDECODABLE) == 0
    monkeypatch.setenv("ZWHEEL_URL", url)
    assert run(["dead", "ls", "--queue", QUEUE, "--json"]) == 0
    (document,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (document["id"], document["reason"]) == ("newer", "undecodable")
    assert "not know" in json.dumps(document)
    assert run(["dead", "redrive", "newer", "--queue", QUEUE]) == 4
    assert "another version" in capsys.readouterr().err
    still_there(old, fresh, stored)


def test_the_version_that_knows_it_redrives_it(old: Hand, fresh: RedisServer, url: str, stored: bytes) -> None:
    old.complete(old.claim())
    with fresh.client() as client:
        client.hset(old.keys.jobs, "newer", b"2" + stored[1:49] + b"00" + stored[stored.index(b"mail.send") :])
    with SyncWheel(url, namespace="zw") as wheel:
        assert wheel.redrive(QUEUE) == 1
    assert list(old.claim()) == ["newer"]


def test_keys_of_another_schema_are_refused_by_name_and_not_touched(old: Hand, fresh: RedisServer, url: str) -> None:
    old.enqueue("a")
    with fresh.client() as client:
        client.hset(old.keys.meta, "schema", "2")
        before = client.hgetall(old.keys.meta), client.hgetall(old.keys.jobs)
        with SyncWheel(url, namespace="zw") as wheel, pytest.raises(SchemaMismatch) as refused:
            wheel.enqueue("mail.send", queue=QUEUE)
        assert "{zw:q:0}" in str(refused.value)
        assert "schema 2" in str(refused.value)
        assert "namespace" in str(refused.value)
        assert old.claim() == {}
        assert (client.hgetall(old.keys.meta), client.hgetall(old.keys.jobs)) == before


def test_two_fleets_of_two_namespaces_do_not_meet(url: str) -> None:
    with SyncWheel(url, namespace="zw") as one, SyncWheel(url, namespace="zwy") as other:
        one.enqueue("mail.send", id="a")
        assert other.get("a") is None
        assert other.queues() == []
        other.purge("default", JobState.SCHEDULED)
        assert one.count("default", JobState.SCHEDULED) == 1
