"""Words of a command line as the arguments that a published task asks for: `order=8` is a number where it takes one."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from zwheel.errors import InvalidTime
from zwheel.shapes import Misshapen, Shape, fits, told, words_of

from .when import parse_duration

if TYPE_CHECKING:
    from zwheel.published import PublishedSignature

_INT = re.compile(r"[+-]?[0-9]{1,400}\Z")


def typed(signature: PublishedSignature | None, name: str | int, text: str) -> Any:
    """Make of a word what its argument asks for; without a signature it stays a text. Raises: BadArguments.

    Example: '8' -> 8 for an int, '8' for a str; '90s' -> a timedelta for one; '[1, 2]' -> [1, 2] for a list.
    """
    if signature is None:
        return text
    shape = signature.shape(name)
    choices: list[Shape] = shape["one_of"] if isinstance(shape, dict) and "one_of" in shape else [shape]
    # Any text is a text: what else it may be comes first.
    for choice in sorted(choices, key=lambda one: one in ("str", "bytes")):
        try:
            return _read(choice, text)
        except (ValueError, InvalidTime):
            continue
    raise signature.misfit(name, Misshapen(f"must be {words_of(shape)}, not {told(text)}"))


def _read(shape: Shape, text: str) -> Any:
    """Read one alternative. Raises: ValueError, InvalidTime."""
    if shape is None or shape in ("str", "datetime", "date", "time", "uuid", "decimal"):
        return text
    if isinstance(shape, dict):
        return _one_of(shape["enum"], text) if "enum" in shape else _json(shape, text)
    if shape == "int":
        if _INT.match(text) is None:
            raise ValueError(text)
        return int(text)
    if shape == "float":
        return float(text)
    if shape == "bytes":
        return text.encode()
    if shape == "timedelta":
        return timedelta(milliseconds=parse_duration(text))
    known: dict[str, bool | None] = {"true": True, "false": False} if shape == "bool" else {"null": None}
    if text not in known:
        raise ValueError(text)
    return known[text]


def _one_of(values: list[Any], text: str) -> Any:
    for value in values:
        if text in (value, json.dumps(value)):
            return value
    raise ValueError(text)


def _json(shape: Shape, text: str) -> Any:
    value = json.loads(text)
    if not fits(shape, value):
        raise ValueError(text)
    return value
