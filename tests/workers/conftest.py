"""A wheel on an empty server, and a log for its workers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.workers.harness import Log
from zwheel import Wheel


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    """A wheel on an empty server."""
    async with Wheel(url, namespace="zw", give_up_s=10.0) as made:
        yield made


@pytest.fixture
async def log(anyio_backend: str) -> Log:
    """What the workers of a test tell."""
    return Log()
