"""What the tests of the faults share: a wheel on an empty server, a stage for worker processes, a log, a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.proxy import Proxy
from tests.servers import RedisServer
from tests.workers.harness import Log
from tests.workers.stage import Stage
from zwheel import Wheel


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    """A wheel on an empty server."""
    async with Wheel(url, namespace="zw", give_up_s=15.0) as made:
        yield made


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    """Where the jobs of worker processes appear."""
    async with Stage(tmp_path_factory.mktemp("s") / "stage") as made:
        yield made


@pytest.fixture
async def log(anyio_backend: str) -> Log:
    """What the workers of a test tell."""
    return Log()


@pytest.fixture
def proxy(fresh: RedisServer) -> Iterator[Proxy]:
    """A network that can fail."""
    with Proxy(fresh.socket) as made:
        yield made


@pytest.fixture
async def far(proxy: Proxy, anyio_backend: str) -> AsyncIterator[Wheel]:
    """A wheel behind the proxy."""
    async with Wheel(proxy.url, namespace="zw", give_up_s=15, timeout_s=5) as made:
        yield made
