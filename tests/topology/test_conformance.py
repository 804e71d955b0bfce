"""What async clients and workers do on one server they do on a cluster: the same tests, with the URL of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.client import test_late, test_operations, test_schedules, test_wheel
from tests.client.test_operations import hand as hand
from tests.groups import Cluster
from tests.topology.taken import taken
from tests.workers import test_outcomes
from tests.workers.harness import Log
from zwheel import Wheel

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
globals().update(taken(test_late, test_operations, test_schedules, test_wheel, test_outcomes))


@pytest.fixture
def url(cluster: Cluster) -> str:
    """The URL of a cluster without keys."""
    return cluster.url


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    """A wheel on a cluster."""
    async with Wheel(url, namespace="zw", give_up_s=10.0) as made:
        yield made


@pytest.fixture
async def log(anyio_backend: str) -> Log:
    """What the workers of a test tell."""
    return Log()
