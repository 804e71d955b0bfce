"""The tasks that workers publish: what a caller needs to know of a task whose code it does not have.

A row of the HASH `<namespace>:tasks` is JSON:

    queue, retries, timeout_ms, keep_ms, process   the task's policy
    params      its parameters: name, kind, required and shape (see `zwheel/published/shapes.py`); null: not known
    about       the first line of its docstring
    app         the application that has it, as `zwheel worker` was told
    version     the version of zwheel that published it
    seen_ms     when a worker published it last, ms

Nothing that is read here is trusted: a row that is not as it should be is no row.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from zwheel._version import __version__
from zwheel.errors import BadArguments, InvalidInput
from zwheel.job import QueueName
from zwheel.keys import check_name, check_task
from zwheel.outside import whole
from zwheel.payload.arguments import Signature
from zwheel.payload.travel import as_sent, check_travel
from zwheel.policy import TaskPolicy
from zwheel.published.shapes import (
    Misshapen,
    Shape,
    annotation_of,
    asks_for,
    check_shape,
    fits,
    from_text,
    one_of,
    read_shape,
    shape_of,
)
from zwheel.record import MAX_ATTEMPTS, MAX_KEEP_MS
from zwheel.times import MAX_MS

#: The largest facts that are written, bytes: larger facts leave the parameters out. And the largest row that is read.
FACTS_BYTES, _READ_BYTES = 8_192, 16_384
_SEEN = b',"seen_ms":'
_MOST_PARAMETERS = 100
_ABOUT_CHARACTERS = 200
_KINDS = {
    "positional": inspect.Parameter.POSITIONAL_ONLY, "either": inspect.Parameter.POSITIONAL_OR_KEYWORD,
    "args": inspect.Parameter.VAR_POSITIONAL, "keyword": inspect.Parameter.KEYWORD_ONLY,
    "kwargs": inspect.Parameter.VAR_KEYWORD,
}  # fmt: skip
_REST = ("args", "kwargs")
_NAMES = {kind: name for name, kind in _KINDS.items()}
_IDENTIFIER = re.compile(r"\w{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a published task."""

    name: str
    kind: str
    """positional, either, args (`*args`), keyword or kwargs (`**kwargs`)."""
    required: bool
    shape: Shape
    """What it asks for; None: anything."""


class PublishedSignature:
    """What a published task takes. Checks a call as the task itself would, and its values too."""

    def __init__(self, task: str, parameters: Sequence[Parameter]) -> None:
        """Raises: ValueError when there can be no such function."""
        self.parameters = tuple(parameters)

        def stand_in() -> None: ...

        stand_in.__qualname__ = task
        stand_in.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    one.name, _KINDS[one.kind], annotation=annotation_of(one.shape),
                    default=inspect.Parameter.empty if one.required or one.kind in _REST else None,
                )
                for one in self.parameters
            ]
        )  # fmt: skip
        self._signature = Signature(stand_in)
        self._shapes = {one.name: one.shape for one in self.parameters if one.kind not in _REST}
        self._rest = {one.kind: one.shape for one in self.parameters if one.kind in _REST}
        self._positional = [one.name for one in self.parameters if one.kind in ("positional", "either")]

    @property
    def title(self) -> str:
        """The call as a person knows it. Example: `shop.remind(order, note=...)`."""
        return self._signature.title

    def shape(self, name: str | int) -> Shape:
        """What the argument of this name, or at this position, asks for; None: anything."""
        if isinstance(name, int):
            if name >= len(self._positional):
                return self._rest.get("args")
            name = self._positional[name]
        return self._shapes[name] if name in self._shapes else self._rest.get("kwargs")

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise BadArguments when the task could not be called so, or a value is none of those it asks for."""
        self._signature.check(args, kwargs)
        arrived = as_sent(args, kwargs)
        given: list[tuple[str | int, Any]] = [*enumerate(arrived[0]), *arrived[1].items()]
        for name, value in given:
            try:
                check_shape(self.shape(name), value)
            except Misshapen as error:
                raise self.misfit(name, error) from None
        check_travel(self._signature, args, kwargs, arrived)

    def from_text(self, name: str | int, text: str) -> Any:
        """Make of a text what the argument of this name or position asks for. Raises: BadArguments."""
        try:
            return from_text(self.shape(name), text)
        except Misshapen as error:
            raise self.misfit(name, error) from None

    def fitted(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], only: Container[Shape] | None = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with each text made into what is asked for, where that is no text. Raises: BadArguments.

        only: leave alone what asks for anything but these.
        """

        def fit(name: str | int, value: Any) -> Any:
            shape = self.shape(name)
            if isinstance(value, str) and not fits(shape, value) and (only is None or asks_for(shape, only)):
                return self.from_text(name, value)
            return value

        return [fit(i, value) for i, value in enumerate(args)], {name: fit(name, kwargs[name]) for name in kwargs}

    def misfit(self, name: str | int, error: Misshapen) -> BadArguments:
        """The error of an argument that has not its shape."""
        shown = self._signature.names(name + 1)[name] if isinstance(name, int) else name
        return BadArguments(f"{self.title}: {shown} {error}")


@dataclass(frozen=True, slots=True)
class PublishedTask:
    """What is known of a task that a worker published."""

    name: str
    policy: TaskPolicy
    """Its queue, retries, timeout, keep and process; the rest of it concerns the worker alone."""
    signature: PublishedSignature | None
    """What it takes; None: not known."""
    about: str
    """The first line of its docstring."""
    app: str
    version: str
    """Of zwheel."""
    seen_ms: int
    """When a worker published it last, ms since the epoch."""

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise BadArguments when the task cannot be called so, as far as that is known."""
        if self.signature is not None:
            self.signature.check(args, kwargs)


class Declared(Protocol):
    """A task whose code is here."""

    @property
    def policy(self) -> TaskPolicy:
        """What holds for its jobs."""

    @property
    def signature(self) -> Signature:
        """How a call fits it."""

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""


def row_of(task: Declared, app: str, seen_ms: int) -> bytes:
    """What a worker publishes of one of its tasks."""
    return stamped(facts_of(task, app), seen_ms)


def stamped(facts: bytes, seen_ms: int) -> bytes:
    """A whole row: the facts, and when they were published."""
    return b"%b%b%d}" % (facts, _SEEN, seen_ms)


def seen_of(facts: bytes, raw: bytes) -> int | None:
    """When just these facts were published last, ms; None: the row says something else."""
    if not raw.startswith(facts + _SEEN):
        return None
    seen = raw[len(facts) + len(_SEEN) : -1]
    return whole(seen, 0, MAX_MS) if seen.isdigit() else None


def facts_of(task: Declared, app: str) -> bytes:
    """The beginning of a row, all of it that stays the same as long as the worker runs."""
    policy = task.policy
    row: dict[str, Any] = {
        "queue": policy.queue, "retries": policy.retries, "timeout_ms": policy.timeout_ms, "keep_ms": policy.keep_ms,
        "process": policy.process, "params": _params(task.signature), "about": _about(task.function),
        "app": app[:_ABOUT_CHARACTERS], "version": __version__,
    }  # fmt: skip
    raw = _packed(row)
    return raw if len(raw) <= FACTS_BYTES else _packed(row | {"params": None})


def _packed(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace").removesuffix(b"}")


def _about(function: Any) -> str:
    lines = (inspect.getdoc(function) or "").strip().splitlines()
    return lines[0][:_ABOUT_CHARACTERS] if lines else ""


def _params(signature: Signature) -> list[list[Any]] | None:
    found = parameters_of(signature)
    return [[one.name, one.kind, one.required, one.shape] for one in found] if len(found) <= _MOST_PARAMETERS else None


def parameters_of(signature: Signature) -> list[Parameter]:
    """The parameters of a function, with the shapes that their annotations ask for."""
    found = []
    for parameter, annotation in signature.parameters():
        shape = None if annotation is inspect.Parameter.empty else shape_of(annotation)
        if parameter.default is None and shape is not None:
            shape = one_of([shape, "null"])
        rest = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        required = parameter.default is inspect.Parameter.empty and not rest
        found.append(Parameter(parameter.name, _NAMES[parameter.kind], required, shape))
    return found


def read_row(name: object, raw: object) -> PublishedTask | None:
    """Read a row that anyone may have written; None for what is none."""
    if not isinstance(raw, (bytes, str)) or len(raw) > _READ_BYTES:
        return None
    try:
        known = check_task(name.decode() if isinstance(name, bytes) else str(name))
        row = json.loads(raw)
        queue = QueueName(check_name(row["queue"]))
        retries, seen_ms = whole(row["retries"], 0, MAX_ATTEMPTS - 1), whole(row["seen_ms"], 0, MAX_MS)
        if retries is None or seen_ms is None or isinstance(row["retries"], bool):
            return None
        policy = TaskPolicy(
            queue=queue, retries=retries, timeout_ms=_optional(row["timeout_ms"], 1, MAX_MS),
            keep_ms=_optional(row["keep_ms"], 0, MAX_KEEP_MS), process=row.get("process") is True,
        )  # fmt: skip
        about, app, version = (str(row.get(key, ""))[:_ABOUT_CHARACTERS] for key in ("about", "app", "version"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidInput):
        return None
    return PublishedTask(known, policy, _read_params(known, row.get("params")), about, app, version, seen_ms)


def _optional(value: object, least: int, most: int) -> int | None:
    """A number or nothing. Raises: ValueError."""
    if value is None:
        return None
    number = whole(value, least, most)
    if number is None:
        raise ValueError(value)
    return number


def _read_params(task: str, raw: object) -> PublishedSignature | None:
    if not isinstance(raw, list) or len(raw) > _MOST_PARAMETERS:
        return None
    try:
        parameters = [
            Parameter(_identifier(name), kind, required is True, read_shape(shape))
            for name, kind, required, shape in raw
            if kind in _KINDS
        ]
        return PublishedSignature(task, parameters) if len(parameters) == len(raw) else None
    except (ValueError, TypeError, RecursionError):
        return None


def _identifier(name: object) -> str:
    if not isinstance(name, str) or _IDENTIFIER.match(name) is None:
        raise ValueError(name)
    return name
