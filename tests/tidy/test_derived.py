from __future__ import annotations

import ast

import pytest

from .derive import CLIENT, DERIVED, derived


def statements(text: str) -> list[str]:
    """What the text says, in any format; imports in any order."""
    body = ast.parse(text).body
    return [*sorted(map(ast.dump, body[:-1])), ast.dump(body[-1])]


@pytest.mark.parametrize("name", sorted(DERIVED))
def test_the_blocking_client_is_what_the_async_one_is(name: str) -> None:
    written = (CLIENT / DERIVED[name]).read_text(encoding="utf-8")
    assert statements(written) == statements(derived(name)), "run `make format`"
