"""Asking a server with our own clients."""

from __future__ import annotations

from typing import Any

import pytest

from zwheel.broker.connect import connect_async, translate
from zwheel.errors import BrokerError

SECRET = "s3cr3t-p@ss/word"
ESCAPED = "s3cr3t-p%40ss%2Fword"


def open_async(url: str, **options: Any) -> Any:
    """The client without its annotations: redis-py declares Awaitable where asyncio wants a coroutine."""
    return connect_async(url, **options)


async def refused(url: str, *command: Any, timeout_s: float = 10.0) -> BrokerError:
    """Send a command that must fail, and give what `translate` makes of it."""
    client = open_async(url, timeout_s=timeout_s)
    try:
        with pytest.raises(Exception) as raised:
            await client.execute_command(*command)
    finally:
        await client.aclose()
    error = translate(raised.value, url)
    assert SECRET not in str(error)
    return error
