"""How one value is rebuilt from its annotation, after it travelled as plain data.

    annotation                            from                  to
    a dataclass                           a map                 an instance, field by field; an unknown field is a misfit
    a NamedTuple                          an array              an instance, field by field
    a pydantic model                      a map                 what pydantic makes of it, with its own checks
    an Enum                               the value             the member
    tuple[...], set[...], frozenset[...]  an array              that type, member by member
    list[X], dict[K, V] and their like    the same              members rebuilt, where X, K or V ask for it
    X | Y, X | None                       whatever arrived      the first alternative that fits
    datetime, date, time, UUID, Decimal   text, as JSON has it  that type; a datetime needs its offset
    Annotated[X, ...], NewType            -                     as X
    anything else, TypedDict too          -                     left as it is

A value that already has its type is left alone. An annotation that names a pydantic model anywhere in it is pydantic's
business as a whole, so that its discriminators and constraints hold. Other values are not checked against their types.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import importlib
import inspect
import sys
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any

from zwheel.payload.spread import Colliding, build_map, build_set

Rebuild = Callable[[Any], Any]

_ARRAYS = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SETS: dict[Any, type[Any]] = {
    set: set, frozenset: frozenset, collections.abc.Set: set, collections.abc.MutableSet: set,
}  # fmt: skip
_SCALARS = (str, int, float, bool, bytes, type(None))


class Misfit(Exception):
    """A value that does not fit its annotation: where in the argument, and what is wrong."""

    def __init__(self, what: str, path: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.path = path

    def within(self, step: str) -> Misfit:
        """Give the same misfit as seen from one level further out."""
        return Misfit(self.what, step + self.path)


def resolve(annotation: Any, names: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> Any:
    """Turn an annotation that may be text into what it names, or into Any when that cannot be found."""

    def carrier() -> None: ...

    carrier.__annotations__ = {"it": annotation}
    try:
        return typing.get_type_hints(carrier, dict(names), dict(more or {}), include_extras=True)["it"]
    except Exception:  # evaluating someone's text can raise anything
        return Any


def rebuilder(annotation: Any) -> Rebuild | None:
    """Return the function that rebuilds a value of this annotation, or None when values stay as they are."""
    if _names_model(annotation):
        return _model(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return rebuilder(annotation.__origin__)
    if isinstance(annotation, typing.NewType):
        return rebuilder(annotation.__supertype__)
    alias = annotation if origin is None else origin
    if type(alias).__name__ == "TypeAliasType":
        return rebuilder(alias.__value__)
    parts = typing.get_args(annotation)
    if origin is typing.Union or origin is types.UnionType:
        return _union(parts)
    if not isinstance(alias, type) or typing.is_typeddict(alias):
        return None
    return _container(alias, parts) or _class(alias)


def _container(kind: type[Any], parts: tuple[Any, ...]) -> Rebuild | None:
    if kind is tuple:
        return _tuple(parts)
    if kind in _SETS:
        return _array(rebuilder(parts[0]) if parts else None, _SETS[kind])
    if kind in _ARRAYS and parts:
        item = rebuilder(parts[0])
        return None if item is None else _array(item, list)
    if kind in _MAPS and len(parts) == 2:
        return _map(rebuilder(parts[0]), rebuilder(parts[1]))
    return None


def _class(kind: type[Any]) -> Rebuild | None:
    if issubclass(kind, Enum):
        return _enum(kind)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _named_tuple(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    return _TEXT.get(kind)


def _each(item: Rebuild | None, values: Iterable[Any]) -> Iterable[Any]:
    if item is None:
        yield from values
        return
    for index, value in enumerate(values):
        try:
            yield item(value)
        except Misfit as misfit:
            raise misfit.within(f"[{index}]") from misfit.__cause__


def _array(item: Rebuild | None, kind: type[Any]) -> Rebuild:
    def rebuild(value: Any) -> Any:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise Misfit(f"is {_a(value)}, not an array")
        if item is None and type(value) is kind:
            return value
        try:
            if kind is list or kind is tuple:
                return kind(_each(item, value))
            return kind(build_set(list(_each(item, value))))
        except (TypeError, Colliding) as error:
            raise Misfit(f"cannot become a {kind.__name__}: {error}") from error

    return rebuild


def _tuple(parts: tuple[Any, ...]) -> Rebuild:
    if not parts or any(typing.get_origin(part) is typing.Unpack for part in parts):
        return _array(None, tuple)
    if len(parts) == 2 and parts[1] is Ellipsis:
        return _array(rebuilder(parts[0]), tuple)
    items = [rebuilder(part) for part in parts]

    def rebuild(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise Misfit(f"is {_a(value)}, not an array")
        if len(value) != len(items):
            raise Misfit(f"has {len(value)} items, not {len(items)}")
        return tuple(_at(f"[{n}]", item, part) for n, (item, part) in enumerate(zip(items, value, strict=True)))

    return rebuild


def _map(key: Rebuild | None, item: Rebuild | None) -> Rebuild | None:
    if key is None and item is None:
        return None

    def rebuild(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Misfit(f"is {_a(value)}, not a map")
        pairs = [(_at(f" key {name!r}", key, name), _at(f"[{name!r}]", item, each)) for name, each in value.items()]
        try:
            return build_map(pairs)
        except Colliding as error:
            raise Misfit(f"cannot become a map: {error}") from error

    return rebuild


def _union(parts: tuple[Any, ...]) -> Rebuild | None:
    choices = [(part, rebuilder(part)) for part in parts]
    rebuilds = [rebuild for _, rebuild in choices if rebuild is not None]
    if not rebuilds:
        return None
    scalars = frozenset(part for part in parts if part in _SCALARS)

    def rebuild(value: Any) -> Any:
        if type(value) in scalars:
            return value
        misfits = []
        for part, choice in choices:
            if choice is None:
                if _accepts(part, value):
                    return value
                continue
            try:
                return choice(value)
            except Misfit as misfit:
                misfits.append(misfit)
        if len(misfits) == 1:
            raise misfits[0]
        names = ", ".join(_name(part) for part in parts)
        raise Misfit(f"fits none of {names}")

    return rebuild


def _accepts(part: Any, value: Any) -> bool:
    """Whether a value may be what an annotation without a rebuilder says; in doubt, yes."""
    kind = typing.get_origin(part) or part
    if typing.is_typeddict(kind):
        return isinstance(value, dict)
    if not isinstance(kind, type):
        return True
    try:
        return isinstance(value, (int, float) if kind is float else kind)
    except TypeError:
        return True


def _enum(kind: type[Enum]) -> Rebuild:
    def rebuild(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        for form in (value, tuple(value)) if isinstance(value, list) else (value,):
            try:
                return kind(form)
            except (ValueError, TypeError, KeyError):
                continue
        raise Misfit(f"is no value of {kind.__name__}")

    return rebuild


@cache
def _named_tuple(kind: type[Any]) -> Rebuild:
    names: tuple[str, ...] = kind._fields
    items: list[Rebuild | None] | None = None

    def rebuild(value: Any) -> Any:
        nonlocal items
        if isinstance(value, kind):
            return value
        if not isinstance(value, (list, tuple)) or len(value) != len(names):
            raise Misfit(f"is not an array of the {len(names)} fields of {kind.__name__}")
        if items is None:
            items = [rebuilder(hint) for hint in _hints(kind, names)]
        return kind(*(_at(f".{n}", item, each) for n, item, each in zip(names, items, value, strict=True)))

    return rebuild


def _hints(kind: type[Any], names: tuple[str, ...]) -> list[Any]:
    try:
        hints = typing.get_type_hints(kind, localns={kind.__name__: kind}, include_extras=True)
    except Exception:  # as in resolve
        hints = {}
    return [hints.get(name, Any) for name in names]


@cache
def _dataclass(kind: type[Any]) -> Rebuild:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    given = frozenset(name for name, field in fields.items() if field.init)
    required = frozenset(
        name
        for name, field in fields.items()
        if field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
    items: dict[str, Rebuild | None] | None = None

    def rebuild(value: Any) -> Any:
        nonlocal items
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise Misfit(f"is {_a(value)}, not a map of the fields of {kind.__name__}")
        if not value.keys() <= fields.keys():
            raise Misfit(f"has fields that {kind.__name__} lacks: {_list(value.keys() - fields.keys())}")
        if not required <= value.keys():
            raise Misfit(f"lacks fields of {kind.__name__}: {_list(required - value.keys())}")
        if items is None:  # not before the first use: a field may name its own class, or a class that comes later
            items = {name: rebuilder(_field_type(kind, field)) for name, field in fields.items()}
        found = {name: _at(f".{name}", items[name], each) for name, each in value.items() if name in given}
        try:
            return kind(**found)
        except Exception as error:
            raise Misfit(f"is refused by {kind.__name__}: {shorten(error)}") from error

    return rebuild


def _field_type(kind: type[Any], field: dataclasses.Field[Any]) -> Any:
    """Resolve a field's annotation where it was written: in the module of the class that first had the field."""
    owners = (
        base
        for base in reversed(kind.__mro__)
        if base.__dict__.get("__dataclass_fields__", {}).get(field.name) is field
    )
    owner = next(owners, kind)
    module = sys.modules.get(owner.__module__)
    own = {**vars(owner), owner.__name__: owner, kind.__name__: kind}
    return resolve(field.type, vars(module) if module else {}, own)


def _names_model(annotation: Any) -> bool:
    if isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__"):
        return True
    if typing.get_origin(annotation) is typing.Annotated:
        return _names_model(annotation.__origin__)
    return any(_names_model(part) for part in typing.get_args(annotation))


def _model(annotation: Any) -> Rebuild:
    """Rebuild by pydantic, which is there when an annotation names one of its models. Fields go by name or alias."""
    pydantic: Any = importlib.import_module("pydantic")
    adapter: Any = None
    options: dict[str, bool] = {}

    def rebuild(value: Any) -> Any:
        nonlocal adapter, options
        try:
            if adapter is None:
                made = pydantic.TypeAdapter(annotation)
                if "by_name" in inspect.signature(made.validate_python).parameters:
                    options = {"by_alias": True, "by_name": True}
                adapter = made
            return adapter.validate_python(value, **options)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
            more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
            raise Misfit(f"is refused: {first['msg']}{more}", path) from error
        except Exception as error:
            raise Misfit(f"is refused: {shorten(error)}") from error

    return rebuild


def _text(kind: type[Any], parse: Callable[[str], Any]) -> Rebuild:
    def rebuild(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except (ValueError, ArithmeticError) as error:
            raise Misfit(f"is text that is no {kind.__name__}") from error

    return rebuild


def _aware(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    if when.utcoffset() is None:
        raise Misfit("is a time without a zone: add Z or an offset such as +01:00")
    return when


_TEXT: dict[type[Any], Rebuild] = {
    datetime: _text(datetime, _aware),
    date: _text(date, date.fromisoformat),
    time: _text(time, time.fromisoformat),
    uuid.UUID: _text(uuid.UUID, uuid.UUID),
    Decimal: _text(Decimal, Decimal),
}


def _at(step: str, item: Rebuild | None, value: Any) -> Any:
    if item is None:
        return value
    try:
        return item(value)
    except Misfit as misfit:
        raise misfit.within(step) from misfit.__cause__


def _a(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _name(part: Any) -> str:
    return part.__name__ if isinstance(part, type) else str(part)


def _list(names: Iterable[Any]) -> str:
    shown = sorted(ascii(name)[:40] for name in names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def shorten(error: BaseException) -> str:
    """Name an error and its text in at most 200 characters on one line."""
    try:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    except Exception:
        text = type(error).__name__
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:197] + "..."
