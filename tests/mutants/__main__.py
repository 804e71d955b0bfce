"""`python -m tests.mutants`: put each fault into the scripts and print which check noticed it; 1 when one survives."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from .run import CHECKS, run
from .table import MUTANTS


def main() -> int:
    """Run the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants or files below lua/; without any: all of them")
    parser.add_argument("--jobs", "-j", type=int, default=2, help="how many run side by side")
    parser.add_argument(
        "--every", action="store_true", help="try each mutant with every check, not until one notices it"
    )
    parser.add_argument("--check", action="append", choices=list(CHECKS), help="only this check; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the mutants")
    args = parser.parse_args()
    chosen = [m for m in MUTANTS if not args.names or m.name in args.names or m.file in args.names]
    if args.list:
        for mutant in chosen:
            sys.stdout.write(f"{mutant.file:<24} {mutant.name}\n")
        return 0
    for mutant in chosen:
        mutant.text()
    # What every check needs is imported once, before the forks.
    for module in ("hypothesis.stateful", "pytest", "tests.mutants.scenario"):
        importlib.import_module(module)
    started = time.monotonic()
    survived = 0
    for result in run(chosen, args.check or list(CHECKS), jobs=args.jobs, every=args.every):
        survived += not result.caught or bool(result.fault)
        what = result.fault or "; ".join(f"{name}: {said}" for name, said in result.caught.items()) or "SURVIVED"
        sys.stdout.write(f"{result.mutant.name:<42} {result.seconds:5.1f} s  {what[:150]}\n")
        sys.stdout.flush()
    sys.stdout.write(f"\n{len(chosen)} mutants, {survived} survived, {time.monotonic() - started:.0f} s\n")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
