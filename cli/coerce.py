"""Turns words of the command line into str, int and enum values without pydantic.

Typer reads every option through a pydantic adapter that it builds at each start: importing pydantic and building them
takes longer than all else that `--help` does. The few kinds of values that our commands take need none of it; any
other kind still goes through Typer.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import typer

if TYPE_CHECKING:
    from typer._click import Context as AnyContext

P = TypeVar("P")


class Coercion:
    """Reads the values of one parameter. Has the one method that Typer calls."""

    def __init__(self, kind: type, param: Any) -> None:
        self._kind = kind
        self._least = param.min
        self._most = param.max

    def coerce(self, value: Any, param: Any, ctx: AnyContext) -> Any:
        """Give the value in its type. Raises: typer.BadParameter."""
        if param.multiple or param.nargs == -1:
            return tuple(self._one(item, param, ctx) for item in value or ())
        return None if value is None else self._one(value, param, ctx)

    def _one(self, value: Any, param: Any, ctx: AnyContext) -> Any:
        if isinstance(value, self._kind):
            return value
        try:
            read = self._kind(value)
        except ValueError:
            if issubclass(self._kind, Enum):
                choices = ", ".join(str(member.value) for member in self._kind)
                raise typer.BadParameter(f"{value!r} is not one of {choices}", ctx, param) from None
            raise typer.BadParameter(f"{value!r} is not a whole number", ctx, param) from None
        if (self._least is not None and read < self._least) or (self._most is not None and read > self._most):
            most = "" if self._most is None else f" and at most {self._most}"
            raise typer.BadParameter(f"{value} must be at least {self._least}{most}", ctx, param)
        return read


def lighten(params: list[P]) -> list[P]:
    """Let parameters of plain kinds read their values here, and give the list back."""
    for param in params:
        known: Any = param
        annotation = known.type_descriptor.annotation
        kind = get_args(annotation)[0] if get_origin(annotation) is list else annotation
        if isinstance(kind, type) and (kind in (str, int, bool) or issubclass(kind, Enum)):
            known.__dict__.setdefault("get_runtime_param", _always(Coercion(kind, known)))
    return params


def _always(coercion: Coercion) -> Callable[[], Coercion]:
    return lambda: coercion
