"""Would the arguments of a call arrive at the worker as they are here? Asked before a job is sent, where it costs nobody.

A dataclass or a pydantic model travels as a map, and the annotation of its parameter makes an object of it again. That
fails, or loses something, for a computed field that the model forbids, an excluded one, an `InitVar`, or an object of a
subclass where its base is annotated. Plain values travel as they are, and nothing is asked for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from zwheel.errors import BadArguments
from zwheel.payload.arguments import Signature
from zwheel.payload.extensions import pack_rich, unpack_rich

_CONTAINERS = (list, tuple, dict)


def as_sent(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as they arrive at a worker, before it rebuilds any of them."""
    sent_args, sent_kwargs = unpack_rich(pack_rich([list(args), dict(kwargs)]))
    return sent_args, sent_kwargs


def check_travel(
    signature: Signature,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    arrived: tuple[list[Any], dict[str, Any]] | None = None,
) -> None:
    """Send the arguments round in this process. Raises: BadArguments when they would be refused, or arrive as others.

    arrived: what `as_sent` gave for them, where that is known.
    """
    if not signature.rebuilds:
        return
    sent_args, sent_kwargs = as_sent(args, kwargs) if arrived is None else arrived
    bound, named = signature.bind(sent_args, sent_kwargs)
    for at, sent, got in [*zip(signature.names(len(args)), args, bound, strict=True), *_of_maps("", kwargs, named)]:
        for loss in _losses(at.removeprefix("."), sent, got):
            raise BadArguments(f"{signature.title} cannot be sent {loss}")


def _losses(at: str, sent: Any, got: Any) -> Iterator[str]:
    """What of a value does not arrive, in words."""
    fields = _fields(sent)
    if fields is not None:
        if _fields(got) is None:
            return  # A map, where no annotation asks for more: a parameter, or a part of one, without an annotation.
        if type(got) is not type(sent):
            yield (
                f"{at}: it is a {type(sent).__qualname__} and would arrive as a {type(got).__qualname__}, which its "
                "annotation names"
            )
            return
        for name in fields:
            yield from _fields_losses(f"{at}.{name}", getattr(sent, name, None), getattr(got, name, None))
    elif isinstance(sent, Mapping) and isinstance(got, Mapping):
        for name, one, other in _of_maps(at, sent, got):
            yield from _losses(name, one, other)
    elif isinstance(sent, (list, tuple)) and isinstance(got, (list, tuple)) and len(sent) == len(got):
        for index, (one, other) in enumerate(zip(sent, got, strict=True)):
            yield from _losses(f"{at}[{index}]", one, other)


def _fields_losses(at: str, sent: Any, got: Any) -> Iterator[str]:
    """As `_losses`, for a field: it may have been left out on the way, and then has its default or nothing."""
    losses = list(_losses(at, sent, got))
    if losses:
        yield from losses
    elif not _alike(sent, got):
        yield f"{at}: its value is lost on the way, since it is excluded or set by the class itself"


def _alike(sent: Any, got: Any) -> bool:
    """Whether a field's value is what it was; what its annotation makes of a plain value is."""
    if type(sent) in _CONTAINERS or _fields(sent) is not None:
        return got is not None  # Their parts were looked at.
    if isinstance(sent, Enum) and not isinstance(got, Enum):
        sent = sent.value
    try:
        if type(sent) is not type(got) and type(sent) is str:
            return got is not None
        if getattr(type(sent), "__eq__", None) is object.__eq__:
            return type(got) is type(sent)
        return bool(sent == got or sent != sent)  # a nan
    except Exception:
        return True


def _fields(value: Any) -> Sequence[str] | None:
    """The names of an object's fields; None for what is no dataclass and no model."""
    kind = type(value)
    if hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_fields"):
        return [*kind.model_fields, *(value.model_extra or {})]
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return None


def _of_maps(at: str, sent: Mapping[str, Any], got: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name, value in sent.items():
        if name in got:
            yield f"{at}.{name}", value, got[name]
