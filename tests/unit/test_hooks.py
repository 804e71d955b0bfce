"""What cannot be a hook of a worker process is refused where it is declared, with the cure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from zwheel import ConfigError, Wheel


def needs_one(wheel: Wheel) -> None:
    @wheel.on_startup
    def hook(pool: object) -> None:
        pass


def yields(wheel: Wheel) -> None:
    @wheel.on_startup
    async def hook() -> AsyncIterator[None]:
        yield


def no_yield(wheel: Wheel) -> None:
    @wheel.lifespan
    async def hook() -> None:
        pass


def brackets(wheel: Wheel) -> None:
    wheel.on_shutdown(None)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("declare", "told"),
    [(needs_one, "without arguments"), (yields, "@wheel.lifespan"), (no_yield, "no yield"), (brackets, "without brackets")],
)  # fmt: skip
def test_what_cannot_be_a_hook_is_refused_with_the_cure(declare: Callable[[Wheel], None], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        declare(Wheel())
