"""Asking a server what it may refuse to tell, in the shapes that the async and the blocking client give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zwheel.broker.store import Steps
from zwheel.errors import BrokerRefused


def text(value: object) -> str:
    """A reply's element as text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def pairs(reply: Any) -> dict[str, str]:
    """A reply of names and values as a dict: a list of both in turns, or a mapping already."""
    if isinstance(reply, Mapping):
        return {text(name): text(value) for name, value in reply.items()}
    return {text(name): text(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}


def info_fields(reply: Any) -> dict[str, str]:
    """What INFO answered."""
    if isinstance(reply, Mapping):
        return pairs(reply)
    lines = text(reply).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def info(section: str) -> Steps[dict[str, str]]:
    """Ask for one section of INFO. Raises: BrokerRefused where it may not be asked."""
    (reply,) = yield (("INFO", section),)
    return info_fields(reply)


def config(name: str) -> Steps[str | None]:
    """Ask for one setting; None when the server has none of that name, or refuses CONFIG, as managed ones do."""
    try:
        (reply,) = yield (("CONFIG", "GET", name),)
    except BrokerRefused:
        return None
    return pairs(reply).get(name)


def number(fields: Mapping[str, str], name: str) -> float | None:
    """A numeric field; None when it is absent or no number."""
    try:
        return float(fields[name])
    except (KeyError, ValueError):
        return None
