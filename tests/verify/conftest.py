"""A book to write a history in."""

from __future__ import annotations

from pathlib import Path

import pytest

from .book import Book


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """An empty history."""
    return Book(tmp_path / "history.jsonl")
