"""What the blocking client does on one server it does on a cluster: the same tests, with the URL of a cluster."""

from __future__ import annotations

import pytest

from tests.client import test_sync
from tests.client.test_sync import wheel as wheel
from tests.groups import Cluster
from tests.topology.taken import taken

pytestmark = pytest.mark.slow
#: This one opens a plain client by the URL.
_PLAIN = ("test_a_queue_joins_the_list_with_the_first_that_is_stored_in_it",)
globals().update(taken(test_sync, without=_PLAIN))


@pytest.fixture
def url(cluster: Cluster) -> str:
    """The URL of a cluster without keys."""
    return cluster.url
