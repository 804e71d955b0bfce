"""All commands, found in the table of the command line."""

from __future__ import annotations

from pathlib import Path

from typer.core import TyperGroup

from zwheel.cli.app import COMMANDS, load

CLI = Path(__file__).resolve().parents[2] / "cli"


def written() -> list[str]:
    """The names in the table whose module is there."""
    return [name for name, (module, _) in COMMANDS.items() if (CLI / f"{module.replace('.', '/')}.py").exists()]


def leaves() -> list[tuple[str, ...]]:
    """The words that name each command which does something."""
    found: list[tuple[str, ...]] = []
    for name in written():
        built = load(name)
        found += [(name, each) for each in built.commands] if isinstance(built, TyperGroup) else [(name,)]
    return found
