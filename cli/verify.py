"""`zwheel verify`: reads the history of a run and decides whether the promises held."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from zwheel.errors import InvalidInput
from zwheel.schedules.durations import parse_duration

from .app import command, single
from .context import Context
from .exits import ExitCode

app = single()

_EXAMPLES = [
    "zwheel verify history/",
    "zwheel verify --snapshot >> history/final.jsonl",
    "zwheel verify history/ --lateness 50ms --drained --json",
]


@command(app, "verify", examples=_EXAMPLES)
def verify(
    ctx: Context,
    history: Annotated[
        list[str] | None, typer.Argument(metavar="HISTORY...", help="Files of a history, or directories of them.")
    ] = None,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Write the queues' whole state, the last lines of a history.")
    ] = False,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", "-q", metavar="QUEUE", help="With --snapshot: only this one; repeat it."),
    ] = None,
    lease: Annotated[
        str | None, typer.Option("--lease", metavar="DURATION", help="The workers' lease; as claimed.")
    ] = None,
    reap: Annotated[str, typer.Option("--reap", metavar="DURATION", help="The workers' reap interval.")] = "5s",
    idle: Annotated[
        str, typer.Option("--idle", metavar="DURATION", help="How long a due job may wait for a worker that sleeps.")
    ] = "1s",
    both: Annotated[
        str, typer.Option("--both", metavar="DURATION", help="The same while two workers are dead, frozen or cut off.")
    ] = "20s",
    slack: Annotated[
        str, typer.Option("--slack", metavar="DURATION", help="What the machine may add to each bound.")
    ] = "1s",
    lateness: Annotated[
        str | None, typer.Option("--lateness", metavar="DURATION", help="The target for the p99 of the lateness.")
    ] = None,
    drained: Annotated[
        bool, typer.Option("--drained", help="The run was drained: every due job must have ended.")
    ] = False,
) -> None:
    """Decide whether the promises held in a recorded run.

    Record one with ZWHEEL_HISTORY=DIR in the environment of producers and workers. Ends with 9 when a promise was
    broken; the events that prove it are shown. With --snapshot it ends with 5 when a node of a cluster gives no answer:
    what lies there is left out.
    """
    if snapshot:
        if history:
            raise InvalidInput("--snapshot writes the state of a running server: it takes no HISTORY")
        _snapshot(ctx, queue)
        return
    if not history:
        raise InvalidInput("name the files or the directory of a history, as in zwheel verify history/")
    if queue:
        raise InvalidInput("--queue goes with --snapshot")
    from zwheel.verify import Bounds, check, read

    bounds = Bounds(
        lease_ms=None if lease is None else parse_duration(lease),
        reap_ms=parse_duration(reap),
        idle_ms=parse_duration(idle),
        both_ms=parse_duration(both),
        slack_ms=parse_duration(slack),
        lateness_ms=None if lateness is None else parse_duration(lateness),
        drained=drained,
    )
    report = check(read(history), bounds)
    if not any(report.summary[what] for what in ("jobs", "starts", "faults")) and not report.broken:
        raise InvalidInput(
            "nothing of any job was recorded there: give ZWHEEL_HISTORY, or Wheel(history=), to producers and workers"
        )
    _show(ctx, report)
    if report.broken:
        raise ctx.fail(ExitCode.BROKEN_PROMISE)


def _snapshot(ctx: Context, queues: list[str] | None) -> None:
    from zwheel.broker.store import SyncStore
    from zwheel.calls import Session
    from zwheel.config import resolve_url
    from zwheel.verify import take_snapshot

    settings = ctx.settings()
    url = resolve_url(settings, start_embedded=ctx.shared.embedded)
    store = SyncStore(url, Session(settings.namespace), timeout_s=ctx.timeout_s)
    try:
        away: list[str] = []
        for line in take_snapshot(store, queues):
            away += line["args"].get("away", ())
            ctx.out.verbatim(json.dumps(line, separators=(",", ":")))
    finally:
        store.close()
    if away:
        ctx.out.error(f"a node of the cluster gives no answer; left out: {', '.join(away)}")
        raise ctx.fail(ExitCode.PARTLY)


def _show(ctx: Context, report: Any) -> None:
    if ctx.json:
        for verdict in report.verdicts:
            ctx.out.value(verdict.as_json())
        ctx.out.value({"summary": report.summary, "broken": [verdict.number for verdict in report.broken]})
        return
    for verdict in report.verdicts:
        reason = f" ({verdict.why})" if verdict.why else ""
        count = f", {verdict.count:,} times" if verdict.count > 1 else ""
        ctx.out.line(f"{verdict.number:<4} {verdict.state}{count}: {verdict.name}{reason}")
        for breach in verdict.breaches[:1]:
            ctx.out.line(f"       {breach.job + ': ' if breach.job else ''}{breach.text}")
            for clue in breach.clues:
                ctx.out.line(f"         {clue}")
    ctx.out.line("")
    for name, value in report.summary.items():
        ctx.out.line(f"{name.replace('_', ' '):<22} {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count:,}" for name, count in value.items()) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)
