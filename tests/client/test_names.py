"""What a task is called: the same wherever its module is run from, and one function only."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zwheel import SyncWheel, Wheel
from zwheel.errors import ConfigError
from zwheel.workers.app import load_app

JOBS = """
import functools
from zwheel import SyncWheel
wheel = SyncWheel("redis://127.0.0.1:1")

@wheel.task
def remind(order): ...

if __name__ == "__main__":
    print(*wheel.tasks)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a package `shop`, with tasks in `shop/jobs.py` and `shop/parts/more.py`, and a lone `script.py`."""
    for file in ("shop/jobs.py", "shop/parts/more.py", "shop/__main__.py", "script.py"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(JOBS)
    for package in ("shop", "shop/parts"):
        (tmp_path / package / "__init__.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["-m", "shop.jobs"], "shop.jobs.remind"),
        (["-m", "shop.parts.more"], "shop.parts.more.remind"),
        (["-m", "shop"], "shop.__main__.remind"),
        (["-m", "script"], "script.remind"),
        (["shop/jobs.py"], "shop.jobs.remind"),
        (["shop/parts/more.py"], "shop.parts.more.remind"),
        (["script.py"], "script.remind"),
    ],
)
def test_a_program_names_its_tasks_as_the_worker_does_that_imports_it(shop: Path, words: list[str], name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    said = subprocess.run(
        [sys.executable, *words], cwd=shop, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.split() == [name]


def test_an_app_that_is_named_by_its_path_has_the_names_of_its_package(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    try:
        assert list(load_app("shop/jobs.py:wheel").tasks) == ["shop.jobs.remind"]
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]


def made(module: str, said: str, file: str = "") -> Any:
    """A function `run` of some module. file: '' for a file that is called as the module."""
    names: dict[str, Any] = {"__name__": module}
    exec(compile(f"def run(): return {said!r}", file or f"{module}.py", "exec"), names)  # noqa: S102 - a module of this test
    return names["run"]


def closures(said: str) -> Any:
    def run() -> str:
        return said

    return run


def first() -> None: ...


class Sender:
    def send(self) -> None: ...


@pytest.mark.parametrize("make", [Wheel, SyncWheel])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (made("billing", "bill"), made("mail", "mail")),
        (made("billing", "bill", "<string>"), made("mail", "mail", "<string>")),
        (made("billing", "same", "<string>"), made("mail", "same", "<string>")),
        (closures("bill"), closures("mail")),
        (Sender().send, Sender().send),
        (first, made("tests.client.test_names", "first")),
    ],
)
def test_two_functions_cannot_have_one_name(make: Any, one: Any, other: Any) -> None:
    wheel = make("redis://127.0.0.1:1")
    wheel.task(name="sync")(one)
    with pytest.raises(ConfigError, match="two functions are registered as task 'sync', .* and .*: give one of them"):
        wheel.task(name="sync")(other)
    wheel.task(name="sync")(one)


def test_a_module_may_be_imported_twice(shop: Path) -> None:
    wheel = Wheel("redis://127.0.0.1:1")
    code = compile("def run(): ...", str(shop / "jobs.py"), "exec")
    names: dict[str, Any] = {}
    for module in ("__main__", "jobs", "jobs"):
        names = {"__name__": module}
        exec(code, names)  # noqa: S102 - a module of this test
        wheel.task(name="run")(names["run"])
    assert wheel.tasks["run"].function is names["run"]


@pytest.mark.parametrize("function", [lambda: None, functools.partial(first)])
def test_what_has_no_name_of_its_own_needs_one(function: Any) -> None:
    with pytest.raises(ConfigError, match="has no name of its own: register it with name="):
        Wheel("redis://127.0.0.1:1").task(function)


def test_a_process_needs_a_function_that_it_can_find() -> None:
    def local() -> None: ...

    for function in (local, Sender().send, lambda: None):
        with pytest.raises(ConfigError, match="process=True needs a function at the top of a module"):
            Wheel("redis://127.0.0.1:1").task(name="work", process=True)(function)
