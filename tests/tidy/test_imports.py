"""What may be imported where, and what importing zwheel costs a producer.

The layers are import-linter's business (pyproject.toml); here is what it cannot see.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .tree import CODE, OTHERS, calls, files, imports, short

RUNS_CODE = {"pickle", "cPickle", "marshal", "dill", "cloudpickle", "shelve", "joblib", "jsonpickle"}
"""Modules whose decoders can run what they read."""
RUNS_TEXT = {"eval", "exec", "compile", "__import__", "loadstring", "os.system", "yaml.load", "builtins.eval"}
TO_REDIS = ("eval", "eval_ro", "evalsha", "script_load", "register_script")

PRODUCER = """
import zwheel
wheel = zwheel.Wheel("redis://127.0.0.1:1")
@wheel.task(name="emails.send")
async def send(to: str, n: int = 1) -> None: ...
wheel.new_job("emails.send", args=["a"], delay=5)
send.job("a", n=2)
"""


def modules_after(code: str) -> set[str]:
    """Run some code in a fresh interpreter and give the names in its sys.modules."""
    report = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-I", "-X", "utf8", "-c", code + report],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("path", files(".py", *CODE, "examples", "benchmarks"), ids=short)
def test_nothing_shipped_can_run_what_it_decodes(path: Path) -> None:
    found = [f"line {line}: import {name}" for line, name in imports(path) if name.split(".")[0] in RUNS_CODE]
    found += [f"line {node.lineno}: {name}()" for node, name in calls(path) if name in RUNS_TEXT]
    assert found == []


@pytest.mark.parametrize("path", files(".py", *CODE), ids=short)
def test_a_script_is_a_file_and_never_put_together_in_python(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "redis.call(" not in text
    assert "redis.pcall(" not in text
    for node, name in calls(path):
        last = name.rpartition(".")[2]
        if last in TO_REDIS and "." in name:
            given = [type(argument).__name__ for argument in node.args]
            assert not {"JoinedStr", "BinOp"} & set(given[:1]), f"line {node.lineno}: {name} of a built string"


@pytest.mark.parametrize("path", files(".py", *CODE, *OTHERS), ids=short)
def test_siblings_are_imported_relatively_and_everything_else_absolutely(path: Path) -> None:
    top = short(path).split("/", maxsplit=1)[0]
    folder = f"zwheel.{short(path).rpartition('/')[0].replace('/', '.')}"
    found = []
    for line, name in imports(path):
        if top in {"cli", "workers"} and (name == folder or name.startswith(f"{folder}.")):
            found.append(f"line {line}: {name}: a sibling is imported as .{name.removeprefix(f'{folder}.')}")
        if top in {"zwheel", "examples"} and name.startswith("."):
            found.append(f"line {line}: {name}: write the absolute name")
        if name.split(".")[0] in {"cli", "workers", "lua"}:
            found.append(f"line {line}: {name}: its name is zwheel.{name}")
    assert found == []


def test_importing_zwheel_brings_in_nothing_but_zwheel() -> None:
    loaded = modules_after("import zwheel")
    heavy = {"typer", "click", "rich", "redis", "hiredis", "msgpack", "anyio", "asyncio", "pydantic", "fakeredis"}
    assert heavy & loaded == set()


def test_a_producer_imports_redis_and_msgpack_only() -> None:
    needed = modules_after("import redis, redis.asyncio, msgpack")
    used = modules_after(PRODUCER)
    added = {name.split(".")[0] for name in used - needed if not name.startswith("_sysconfigdata_")}
    assert added - {"zwheel"} <= set(sys.stdlib_module_names) | {"__mp_main__"}
    assert [name for name in used if name.split(".")[:2][-1] in ("workers", "cli", "embedded")] == []
