"""The one command: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from importlib import import_module

from rich.console import Console

from zwheel import __version__

from .bench import Bench, Benchmark
from .figures import Figure
from .machine import Placement, describe, server_program
from .report import number, table

#: Name on the command line -> module, in the order they run.
BENCHMARKS = {
    "one": "one_by_one",
    "concurrent": "bursts",
    "bulk": "bulk",
    "drain": "drain",
    "lateness": "lateness",
    "rates": "rates",
    "idle": "idle",
    "memory": "memory",
    "flood": "flood",
    "schedules": "schedules",
    "midnight": "midnight",
    "pending": "pending",
    "scripts": "scripts",
    "nodes": "nodes",
    "scale": "scale",
    "kill": "kill",
    "budget": "budget",
}

#: These run only when they are named: they take minutes and gigabytes, or have many rows.
_WHEN_NAMED = {"pending", "scripts", "nodes", "scale", "budget"}

#: A benchmark that takes longer is given up.
_LONGEST_S = 900.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure zwheel on this machine.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which ones: {', '.join(BENCHMARKS)}; default all but {', '.join(sorted(_WHEN_NAMED))}",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON document instead of the table")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each figure (default 5)")
    parser.add_argument(
        "--full", action="store_true", help="longer windows, more rounds, and the default lease of 30 s"
    )
    parser.add_argument(
        "--short", action="store_true", help="little of everything, to see that it works; the figures say nothing"
    )
    parser.add_argument("--socket", action="store_true", help="reach Redis over a Unix socket, not loopback TCP")
    parser.add_argument("--server", metavar="PATH", help="the redis-server or valkey-server to run")
    parser.add_argument("--no-pin", action="store_true", help="leave the placement on CPUs to the system")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a figure is short of its bar")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    return given


def _run(names: list[str], bench: Bench) -> tuple[list[Figure], dict[str, str]]:
    """Run them one after another. One that fails does not take the figures of the others with it."""
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    for name in names:
        bench.say(f"{name} ...")
        benchmark: Benchmark = import_module(f".{BENCHMARKS[name]}", __package__).run
        try:
            found = asyncio.run(_bounded(benchmark, bench))
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
            bench.say(f"{name} failed: {failed[name]}")
        else:
            figures += found
            bench.say("; ".join(f"{figure.name} {number(figure.value)} {figure.unit}" for figure in found))
    return figures, failed


async def _bounded(benchmark: Benchmark, bench: Bench) -> list[Figure]:
    async with asyncio.timeout(_LONGEST_S):
        return await benchmark(bench)


def main() -> int:
    """Run what was asked for; 0, or 1 when a benchmark failed or, with --strict, a figure is short of its bar."""
    given = _arguments()
    errors = Console(stderr=True)
    placement = Placement.choose(pin=not given.no_pin)
    program = server_program(given.server)
    machine = describe(program, placement)
    bench = Bench(
        program=program, placement=placement, unix=given.socket, rounds=given.rounds, full=given.full,
        short=given.short,
        say=lambda text: errors.print(text, style="dim"),
    )  # fmt: skip
    started = time.time()
    names = [name for name in BENCHMARKS if name in (given.names or BENCHMARKS.keys() - _WHEN_NAMED)]
    figures, failed = _run(names, bench)
    if given.json:
        document = {
            "zwheel": __version__,
            "machine": machine,
            "started_ms": int(started * 1000),
            "took_s": round(time.time() - started, 1),
            "transport": "unix" if given.socket else "tcp",
            "failed": failed,
            "figures": [figure.document() for figure in figures],
        }
        print(json.dumps(document, indent=2))
    elif figures:
        table(figures, machine, Console(width=None if sys.stdout.isatty() else 150))
    short = given.strict and any(figure.ok is False for figure in figures)
    return 1 if failed or short else 0


if __name__ == "__main__":
    sys.exit(main())
