"""A book to write a history in."""

from __future__ import annotations

from pathlib import Path

import pytest

from .book import Book


@pytest.fixture(params=[True, False], ids=["settle", "one script an end"])
def book(tmp_path: Path, request: pytest.FixtureRequest) -> Book:
    """An empty history."""
    return Book(tmp_path / "history.jsonl", settles=request.param)
