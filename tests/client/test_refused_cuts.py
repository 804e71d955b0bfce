"""A queue that cannot be made or cut is as it was before; and of one that is removed nothing is left that would be one."""

from __future__ import annotations

import pytest

from tests.servers import RedisServer
from zwheel import BrokerRefused, InvalidInput, QueueFull, Wheel
from zwheel.broker.acl import Role, rules
from zwheel.keys import ShardKeys, shard_names

pytestmark = pytest.mark.anyio
FAR = 3_600


def user(fresh: RedisServer, role: Role) -> str:
    """A user with the rules of a role; gives the URL with it."""
    with fresh.client() as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">secret", *rules([role], "zw", []))
    return fresh.url.replace("unix://", "unix://shop:secret@")


@pytest.mark.parametrize("role", [Role.PRODUCER, Role.READER])
async def test_a_user_that_may_not_cut_a_queue_changes_nothing_and_hears_which_rules_it_lacks(
    fresh: RedisServer, role: Role
) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=4)
        await wheel.enqueue("t", queue="orders", delay=FAR)
        try:
            url = user(fresh, role)
            async with Wheel(url, namespace="zw") as other:
                with pytest.raises(BrokerRefused, match="zwheel acl worker"):
                    await other.reshard_queue("orders", shards=8)
        finally:
            with fresh.client() as client:
                client.execute_command("ACL", "DELUSER", "shop")
        # Nobody is on the way to eight.
        assert (await wheel.reshard_queue("orders", shards=2)).moved == 1


@pytest.mark.parametrize("role", [Role.WORKER, Role.OPERATOR])
async def test_a_worker_and_an_operator_may_cut_a_queue(fresh: RedisServer, role: Role) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=2)
        await wheel.enqueue("t", queue="orders", delay=FAR)
    try:
        async with Wheel(user(fresh, role), namespace="zw") as other:
            assert (await other.reshard_queue("orders", shards=3)).done
    finally:
        with fresh.client() as client:
            client.execute_command("ACL", "DELUSER", "shop")


async def test_of_a_queue_that_was_cut_and_removed_no_shard_looks_like_a_queue(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=4)
        for count in (2, 3):
            await wheel.enqueue("t", queue="orders", delay=FAR)
            await wheel.reshard_queue("orders", shards=count)
        await wheel.remove_queue("orders", jobs=True)
        with fresh.client() as client:
            for count in (2, 3, 4):
                for name in shard_names("orders", count):
                    assert client.hgetall(ShardKeys.of("zw", name).meta) == {b"shards": b"0"}
            assert not [
                key
                for key in client.scan_iter()
                if b":meta" not in key and b"replay" not in key and b"tasks" not in key
            ]
        assert not await wheel.queues()
        # A queue of this name may come again, with shards as they were.
        await wheel.create_queue("orders", shards=4)
        await wheel.enqueue("t", queue="orders", delay=FAR)
        assert (await wheel.queue("orders")).scheduled == 1


@pytest.mark.parametrize("cap", [10**12 + 1, 9007199254740993, 10**30])
async def test_a_cap_beyond_what_any_server_holds_is_refused(fresh: RedisServer, cap: int) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.set_cap("orders", 10**12)
        with pytest.raises(InvalidInput, match=r"cap: .*1,000,000,000,000"):
            await wheel.set_cap("orders", cap)
        assert (await wheel.queue("orders")).cap == 10**12


async def test_a_full_shard_says_that_the_cap_is_its_part(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=4)
        await wheel.set_cap("orders", 10)
        with pytest.raises(QueueFull, match=r"'orders/\dof4' is full: its part of the cap is 3 jobs") as full:
            for _ in range(13):
                await wheel.enqueue("t", queue="orders", delay=FAR)
        assert full.value.cap == 3
