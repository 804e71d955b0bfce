"""`python -m tests.simulator --seeds 10000`: run as many seeds as one likes; exit code 1 when one breaks a promise."""

from __future__ import annotations

import argparse
import sys
import time

from tests.servers import KINDS, RedisServer, binary_of
from tests.simulator.mutants import MUTANTS, Mutant
from tests.simulator.run import MARKS, STEPS, Failure, Simulator
from tests.simulator.wire import Server

MUTANT_SEEDS = 600


def find(mutant: Mutant, path: str, seeds: int = MUTANT_SEEDS) -> Failure | None:
    """Run seeds on a mutant until one breaks a promise."""
    server = Server(path, mutant.made())
    try:
        simulator = Simulator(server, mode=mutant.mode)
        for seed in range(seeds):
            failure = simulator.seed(seed, shrink_s=0)
            if failure is not None:
                return failure
        return None
    finally:
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each run")
    parser.add_argument("--seed", type=int, help="one seed alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: every step of the whole run")
    parser.add_argument("--shrink", type=float, default=20.0, help="seconds to shorten a failure, 0 for none")
    parser.add_argument("--kind", choices=KINDS, default="valkey", help="which server")
    parser.add_argument("--mutants", action="store_true", help="run the changed scripts and tell what found each")
    options = parser.parse_args()
    binary = binary_of(options.kind)
    if binary is None:
        parser.error(f"there is no {options.kind} server here")
    with RedisServer(binary) as running:
        path = str(running.socket)
        if options.mutants:
            return _mutants(path)
        simulator = Simulator(Server(path), steps=options.steps)
        if options.seed is not None and options.trace:
            error, lines = simulator.trace(options.seed)
            print(*lines, sep="\n")  # noqa: T201
            return error is not None
        return _seeds(simulator, options)


def _mutants(path: str) -> int:
    missed = 0
    for mutant in MUTANTS:
        failure = find(mutant, path)
        found = failure is not None and mutant.known_by(failure.error)
        missed += not found
        seed = "missed" if failure is None else f"seed {failure.seed}"
        print(f"{mutant.name:40s} {seed:9s} {failure.error[:120] if failure else ''}", flush=True)  # noqa: T201
    return missed > 0


def _seeds(simulator: Simulator, options: argparse.Namespace) -> int:
    first, count = (options.seed, 1) if options.seed is not None else (options.start, options.seeds)
    began = time.monotonic()
    for done, seed in enumerate(range(first, first + count), 1):
        failure = simulator.seed(seed, shrink_s=options.shrink)
        if failure is not None:
            print(failure)  # noqa: T201
            return 1
        if done % 500 == 0 or done == count:
            ms = (time.monotonic() - began) * 1000 / done
            print(f"{done} seeds, {ms:.0f} ms each, every promise held", flush=True)  # noqa: T201
    print("not reached:", ", ".join(sorted(MARKS - simulator.marks)) or "nothing")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
