"""Does a call fit a task's signature, and what do its arguments become on the worker.

A body carries plain data: a dataclass arrives as a map of its fields, a tuple as a list, an Enum as its value. The
annotations of the task say what they were; `zwheel/payload/rebuild.py` reads those, here is the call as a whole.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zwheel.errors import BadArguments, ConfigError
from zwheel.payload.rebuild import Misfit, Rebuild, rebuilder, resolve, shorten
from zwheel.plain import counted

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Signature:
    """What a function takes. Inspected once; annotations are read on first use, when all they name is defined.

    An annotation that cannot be resolved (imported for type checkers only, or local to a function) leaves its argument
    as it arrives. Safe to share between threads.

    Raises: ConfigError for something that cannot be called, or whose signature cannot be read.
    """

    __slots__ = (
        "_by_name",
        "_function",
        "_high",
        "_low",
        "_names",
        "_parameters",
        "_rebuilds",
        "_required",
        "_rest",
        "plain",
    )

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._parameters = _parameters(function)
        self._names = tuple(p.name for p in self._parameters if p.kind in _POSITIONAL)
        self._by_name = frozenset(p.name for p in self._parameters if p.kind in _NAMED)
        self._required = tuple(
            (p.name, p.kind in _NAMED)
            for p in self._parameters
            if p.default is inspect.Parameter.empty and p.kind not in _VARIABLE
        )
        self._rest = {p.kind: p.name for p in self._parameters if p.kind in _VARIABLE}
        # A call without keywords fits when it has at least `_low` and at most `_high` arguments.
        self._high = sys.maxsize if inspect.Parameter.VAR_POSITIONAL in self._rest else len(self._names)
        by_keyword_only = any(name not in self._names for name, _ in self._required)
        self._low = sys.maxsize if by_keyword_only else len(self._required)
        self._rebuilds: dict[str, Rebuild] | None = None
        #: Whether it is known that no annotation asks for anything: the arguments reach the function as they arrived.
        self.plain = False

    @property
    def rebuilds(self) -> bool:
        """Whether any annotation asks for something; read from the function on first use."""
        return bool(self._read())

    @property
    def title(self) -> str:
        """The call as a person knows it. Example: `remind(order, note=...)`."""
        name = getattr(_innermost(self._function), "__qualname__", "the task").replace("<locals>.", "")
        return f"{name}({', '.join(map(_shown, self._parameters))})"

    def parameters(self) -> Iterator[tuple[inspect.Parameter, Any]]:
        """Each parameter with its annotation, resolved; Parameter.empty for one without."""
        names = _globals(self._function)
        for parameter in self._parameters:
            yield parameter, resolve(parameter.annotation, names) if _annotated(parameter) else inspect.Parameter.empty

    def names(self, count: int) -> list[str]:
        """The names of the first `count` arguments by position; those beyond the named ones go by their number."""
        return [*self._names[:count], *(f"argument {n}" for n in range(len(self._names) + 1, count + 1))]

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise BadArguments when the function cannot be called so. Looks at counts and names, not at values."""
        if kwargs or not self._low <= len(args) <= self._high:
            self._check(len(args), kwargs)

    def bind(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Return the arguments to call the function with, rebuilt from its annotations. The given ones stay as they are.

        Raises: BadArguments when they do not fit the signature, or a value does not fit its annotation.
        """
        if kwargs or not self._low <= len(args) <= self._high:
            self._check(len(args), kwargs)
        if self.plain:
            return args, kwargs
        rebuilds = self._read()
        return self._rebuild(rebuilds, args, kwargs) if rebuilds else (args, kwargs)

    def _check(self, count: int, kwargs: Mapping[str, Any]) -> None:
        if count > self._high:
            raise self._misfit(f"takes at most {counted(self._high, 'positional argument')}, {count} were given")
        taken = self._names[:count]
        for name in taken:
            if name in kwargs and name in self._by_name:
                raise self._misfit(f"got {name!r} twice, by position and by name")
        if not self._by_name >= kwargs.keys() and inspect.Parameter.VAR_KEYWORD not in self._rest:
            unknown = sorted(ascii(name)[:40] for name in kwargs.keys() - self._by_name)
            raise self._misfit(f"does not take {', '.join(unknown[:5])}")
        missing = [name for name, by_name in self._required if name not in taken and not (by_name and name in kwargs)]
        if missing:
            raise self._misfit(f"needs {', '.join(map(repr, missing))}")

    def _rebuild(
        self, rebuilds: dict[str, Rebuild], args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        rest = rebuilds.get(self._rest.get(inspect.Parameter.VAR_POSITIONAL, ""))
        more = rebuilds.get(self._rest.get(inspect.Parameter.VAR_KEYWORD, ""))
        name = ""
        try:
            built = list(args)
            for index, value in enumerate(built):
                name, rebuild = f"argument {index + 1}", rest
                if index < len(self._names):
                    name = self._names[index]
                    rebuild = rebuilds.get(name)
                if rebuild is not None:
                    built[index] = rebuild(value)
            named = dict(kwargs)
            for name, value in kwargs.items():
                rebuild = rebuilds.get(name) if name in self._by_name else more
                if rebuild is not None:
                    named[name] = rebuild(value)
        except Misfit as misfit:
            raise self._misfit(f"cannot take {name}{misfit.path}: it {misfit.what}") from misfit
        except Exception as error:  # nested too deep, or a class with a mind of its own
            raise self._misfit(f"cannot take {name}: {shorten(error)}") from error
        return built, named

    def _read(self) -> dict[str, Rebuild]:
        if self._rebuilds is None:
            names = _globals(self._function)
            found = {p.name: rebuilder(resolve(p.annotation, names)) for p in self._parameters if _annotated(p)}
            self._rebuilds = {name: rebuild for name, rebuild in found.items() if rebuild is not None}
            self.plain = not self._rebuilds
        return self._rebuilds

    def _misfit(self, what: str) -> BadArguments:
        return BadArguments(f"{self.title} {what}")


def _parameters(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        import annotationlib

        options["annotation_format"] = annotationlib.Format.FORWARDREF
    try:
        return tuple(inspect.signature(function, **options).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{function!r} cannot be a task: {error}") from error


def _innermost(function: Any) -> Any:
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    return function


def _globals(function: Callable[..., Any]) -> dict[str, Any]:
    inner = _innermost(function)
    found = getattr(inner, "__globals__", None) or getattr(getattr(inner, "__call__", None), "__globals__", None)  # noqa: B004
    return found or {}


def _annotated(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is not inspect.Parameter.empty


def _shown(parameter: inspect.Parameter) -> str:
    """Show a parameter as a reader knows it, a default only as `...`: it might be a secret, or long."""
    stars = "*" * (1 + _VARIABLE.index(parameter.kind)) if parameter.kind in _VARIABLE else ""
    default = "" if parameter.default is inspect.Parameter.empty else "=..."
    return f"{stars}{parameter.name}{default}"
