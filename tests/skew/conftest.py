"""Two hands on one server, of two versions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.skew.hand import Hand, other_version


@pytest.fixture
def old(url: str) -> Iterator[Hand]:
    """A worker of this version."""
    hand = Hand(url, "old-0001")
    yield hand
    hand.store.close()


@pytest.fixture
def new(url: str) -> Iterator[Hand]:
    """A worker whose scripts are another version's."""
    hand = Hand(url, "new-0001", other_version)
    yield hand
    hand.store.close()
