"""The installed package holds what the tree holds, and the links that type checkers follow are links."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from .tree import ROOT, files, short

LINKED = ("cli", "workers", "lua")


def setting(*path: str) -> Any:
    value: Any = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for key in path:
        value = value[key]
    return value


def folders() -> dict[str, Path]:
    """Every folder that must be a package: dotted name -> where it lies."""
    found = {}
    for top in ("zwheel", *LINKED):
        base = ROOT / top
        name = "zwheel" if top == "zwheel" else f"zwheel.{top}"
        for path in {file.parent for suffix in (".py", ".lua") for file in files(suffix, top)}:
            found[".".join((name, *path.relative_to(base).parts))] = path
    return found


def test_the_list_of_packages_is_the_tree() -> None:
    assert sorted(setting("tool", "setuptools", "packages")) == sorted(folders())


def test_each_mapped_folder_lies_at_the_top() -> None:
    expected = {"zwheel": "zwheel", **{f"zwheel.{name}": name for name in LINKED}}
    assert setting("tool", "setuptools", "package-dir") == expected


def test_every_file_beside_the_code_is_shipped() -> None:
    data = setting("tool", "setuptools", "package-data")
    left_out = [
        short(file)
        for name, folder in folders().items()
        for file in folder.iterdir()
        if file.is_file()
        and not file.is_symlink()
        and file.suffix not in {".py", ".pyc", ".md"}
        and not any(fnmatch(file.name, pattern) for pattern in data.get(name, ()))
    ]
    assert left_out == []


def test_every_package_opens_with_a_docstring() -> None:
    without = [name for name, path in folders().items() if not (path / "__init__.py").is_file()]
    assert without == []


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "zwheel" / "py.typed").is_file()


def test_the_type_checker_reads_every_folder_that_has_code() -> None:
    expected = {path.parent.name for path in ROOT.glob("[a-z]*/*.py") if path.parent.name not in LINKED}
    assert set(setting("tool", "mypy", "files")) == expected - {"build"}


@pytest.mark.parametrize("name", LINKED)
def test_a_mapped_folder_is_a_link_inside_the_package(name: str) -> None:
    link = ROOT / "zwheel" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..", name)


def test_git_keeps_the_links_as_links() -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--stage", "--", *(f"zwheel/{name}" for name in LINKED)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    if not listed:
        pytest.skip("nothing is committed yet")
    assert [line.split()[0] for line in listed] == ["120000"] * len(LINKED)


def test_scripts_run_by_people_are_executable() -> None:
    scripts = [path for path in (ROOT / ".ci").iterdir() if path.read_bytes().startswith(b"#!")]
    assert scripts
    assert [short(path) for path in scripts if not path.stat().st_mode & 0o111] == []
