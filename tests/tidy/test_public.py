"""The public names: each can be imported, has a docstring, and is listed once."""

from __future__ import annotations

import ast
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import zwheel

from .tree import CODE, files, parse, short


@cache
def documented_values() -> frozenset[str]:
    """Names that are assigned at the top of some module and followed by a docstring of their own."""
    found = set()
    for path in files(".py", *CODE):
        body = parse(path).body
        for statement, after in zip(body, [*body[1:], None], strict=True):
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if isinstance(statement, ast.AnnAssign):
                targets = [statement.target]
            if (
                isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)


def own_members(kind: type) -> Iterator[tuple[str, object]]:
    """Give the public methods and properties that a class defines itself."""
    for name, member in vars(kind).items():
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, (property, classmethod))):
            yield name, member


def is_documented(name: str, value: object) -> bool:
    if inspect.isclass(value):
        # A dataclass without a docstring gets its signature as one.
        return value.__doc__ is not None and not value.__doc__.startswith(f"{value.__name__}(")
    if inspect.isroutine(value):
        return bool(inspect.getdoc(value))
    return name.startswith("__") or name in documented_values()


def test_the_public_names_are_sorted_and_all_there() -> None:
    names = list(zwheel.__all__)
    assert names == sorted(set(names))
    assert [name for name in names if not hasattr(zwheel, name)] == []
    assert set(names) <= set(dir(zwheel))


def test_an_unknown_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(zwheel, "no_such_name")  # noqa: B009


@pytest.mark.parametrize("name", sorted(zwheel.__all__))
def test_a_public_name_has_a_docstring(name: str) -> None:
    value = getattr(zwheel, name)
    assert is_documented(name, value)
    if inspect.isclass(value):
        without = [member for member, found in own_members(value) if not getattr(found, "__doc__", None)]
        assert without == []


@pytest.mark.parametrize("name", sorted(zwheel.__all__))
def test_a_public_class_says_that_it_lives_in_zwheel(name: str) -> None:
    module = getattr(getattr(zwheel, name), "__module__", "zwheel")
    assert module.split(".")[0] == "zwheel"
    assert not module.startswith(("zwheel.cli.", "zwheel.workers."))


def surface(kind: type) -> dict[str, list[tuple[str, object]]]:
    """Each public method with the names and defaults of its parameters, inherited ones included."""
    return {
        name: [(parameter.name, parameter.default) for parameter in inspect.signature(member).parameters.values()]
        for name, member in inspect.getmembers(kind, inspect.isroutine)
        if not name.startswith("_")
    }


def test_the_sync_twin_has_the_same_surface() -> None:
    asynchronous, synchronous = surface(zwheel.Wheel), surface(zwheel.SyncWheel)
    assert asynchronous.pop("aclose") == synchronous.pop("close")
    assert asynchronous == synchronous


def modules() -> Iterator[str]:
    for package in (zwheel, import_module("zwheel.cli"), import_module("zwheel.workers")):
        yield package.__name__
        for found in pkgutil.iter_modules(package.__path__):
            if found.name != "__main__":
                yield f"{package.__name__}.{found.name}"


def test_every_module_can_be_imported_by_itself() -> None:
    loaded = [import_module(name) for name in sorted(set(modules()))]
    assert all(isinstance(module, ModuleType) for module in loaded)
    assert [module.__name__ for module in loaded if not module.__doc__] == []


@pytest.mark.parametrize("path", files(".py", *CODE, "lua"), ids=short)
def test_a_module_opens_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(parse(path))
