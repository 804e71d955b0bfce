"""`zwheel doctor`: whether this Redis is fit for jobs, and the queues' keys are in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from zwheel.errors import BrokerUnavailable, OutcomeUnknown
from zwheel.keys import check_name, queue_of

from .app import command, single
from .context import Context
from .exits import ExitCode
from .output import Cell
from .when import human_count

if TYPE_CHECKING:
    from zwheel.broker.store import Store
    from zwheel.doctor import Finding, Health, Keyspace

app = single()

_STYLES = {"ok": "", "warning": "yellow", "problem": "red"}


@command(
    app,
    "doctor",
    examples=[
        "zwheel doctor",
        "zwheel doctor --queue emails --repair",
        "zwheel doctor --json | jq 'select(.level != \"ok\")'",
    ],
)
async def doctor(
    ctx: Context,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", "-q", metavar="NAME", help="Look at this queue's keys; may be repeated. Else at all."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what contradicts itself in the keys; asks first.")
    ] = False,
) -> None:
    """Check the server and the queues' keys: one line a finding, with what it means and its cure.

    The server: version and known faults, role, eviction policy, persistence, memory, clock, rights, access. Each queue:
    its schema, and whether every job is in the one place where its record says. What a managed server does not show is
    said to be unseen, and so is what lies on a node of a cluster that gives no answer. With --repair entries without a
    record go, and jobs in no set or the wrong one return to theirs; it counts first, and without a terminal it needs
    --yes. Exit code 6 when a problem is left, 5 when a queue was not
    looked at in full, since this Redis user lacks a right or a node gives no answer, 0 with warnings only.
    """
    from zwheel.broker.store import Store
    from zwheel.calls import Session
    from zwheel.config import resolve_url
    from zwheel.doctor import check_redis, check_rights, check_url, known_queues
    from zwheel.operations.shards import shards_of

    names = [check_name(name) for name in dict.fromkeys(queue or ())]
    settings = ctx.settings()
    url = resolve_url(settings, start_embedded=ctx.shared.embedded, say=ctx.out.note)
    store = Store(url, Session(settings.namespace), timeout_s=ctx.timeout_s, give_up_s=ctx.give_up_s(url))
    try:
        await store.drive(check_url(url))
        found = await store.drive(check_redis(store.session))
        _tell(ctx, found)
        keyspace = await store.drive(known_queues(store.session))
        _tell(ctx, keyspace.findings)
        queues = list(dict.fromkeys(names or map(queue_of, keyspace.names)))
        rights = await store.drive(check_rights(store.session, queues))
        _tell(ctx, rights)
        shards = [shard for name in names for shard in await store.drive(shards_of(store.session, name))]
        healths = await _look(ctx, store, shards or keyspace.names, keyspace)
        if repair and await _repair(ctx, store, healths):
            keyspace = await store.drive(known_queues(store.session))
            healths = await _look(ctx, store, [health.queue for health in healths], keyspace)
    finally:
        await store.aclose()
    found += [*rights, *keyspace.findings, *(finding for health in healths for finding in health.findings)]
    levels = [str(finding.level) for finding in found]
    problems, warnings = levels.count("problem"), levels.count("warning")
    ctx.out.note(f"{human_count(problems, 'problem')}, {human_count(warnings, 'warning')}")
    if problems:
        raise ctx.fail(ExitCode.REFUSED)
    if not keyspace.in_full or any(health.unseen for health in healths):
        raise ctx.fail(ExitCode.PARTLY)


async def _look(ctx: Context, store: Store, names: list[str], keyspace: Keyspace) -> list[Health]:
    """Check queues, telling what is found in each as soon as it is known."""
    from zwheel.broker.store import LEAST_TRY_S
    from zwheel.doctor import check_queue, unanswered_queue

    healths: list[Health] = []
    last = {queue_of(name): name for name in names}
    give_up_s: float | None = None
    for name in names:
        queue = queue_of(name)
        others = [health for health in healths if queue_of(health.queue) == queue] if last[queue] == name else None
        with ctx.out.progress(f"look at {name}", None) as report:
            steps = check_queue(
                store.session, name, buckets=keyspace.buckets.get(name, ()), groups=keyspace.groups.get(name, ()),
                listed=_is_listed(name, keyspace), others=others, progress=report,
            )  # fmt: skip
            try:
                health = await store.drive(steps, give_up_s=give_up_s)
            except (BrokerUnavailable, OutcomeUnknown) as error:
                if not store.in_parts:
                    raise
                # Its other shards need not be waited for as long again.
                give_up_s, health = LEAST_TRY_S, unanswered_queue(name, error)
        healths.append(health)
        _tell(ctx, health.findings)
    return healths


def _is_listed(name: str, keyspace: Keyspace) -> bool:
    """Whether the list of queues names it; one without any key need not be there."""
    return queue_of(name) in keyspace.listed or not (name in keyspace.buckets or name in keyspace.metas)


async def _repair(ctx: Context, store: Store, healths: list[Health]) -> bool:
    """Mend what was found. Returns whether there was anything to mend. Raises: Refused, when that is not agreed to."""
    from zwheel.doctor import mend_queue

    broken = [health for health in healths if health.to_mend]
    total = sum(health.to_mend for health in broken)
    if not broken:
        unseen = any(health.unseen for health in healths)
        ctx.out.note("nothing to repair in what could be looked at" if unseen else "nothing to repair")
        return False
    ctx.confirm(f"repair {human_count(total, 'thing')} in {', '.join(health.queue for health in broken)}", total)
    for health in broken:
        with ctx.out.progress(f"repair {health.queue}", health.to_mend) as report:
            mended = await store.drive(mend_queue(store.session, health, report))
        if ctx.json:
            ctx.out.value({"queue": health.queue, "repaired": mended})
        else:
            ctx.out.line(f"repaired {health.queue}: {human_count(mended, 'thing')}")
    return True


def _tell(ctx: Context, findings: Iterable[Finding]) -> None:
    for finding in findings:
        level = str(finding.level)
        if ctx.json:
            document = {"check": finding.check, "level": level, "queue": finding.queue or None, "text": finding.text}
            ctx.out.value({**document, "cure": finding.cure or None})
            continue
        about = f"{finding.queue}: " if finding.queue else ""
        cure = f"; {finding.cure}" if finding.cure else ""
        label = f"{level:7}  {finding.check:11}"
        ctx.out.fields([(label, Cell(f"{about}{finding.text}{cure}", _STYLES[level]))])
