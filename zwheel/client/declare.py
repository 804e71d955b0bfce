"""How a call of `new_schedule` becomes a definition: checked, with the task's policy, its arguments encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from zwheel.client.by_name import with_policy_header
from zwheel.client.tasks import BaseTask
from zwheel.errors import InvalidInput
from zwheel.job import QueueName
from zwheel.keys import check_name, check_task
from zwheel.payload.codec import Codec
from zwheel.policy import TIMEOUT_HEADER, Duration, TaskPolicy, check_retries
from zwheel.record import MAX_KEEP_MS
from zwheel.times import duration_ms, to_ms

if TYPE_CHECKING:
    from zwheel.published.task import PublishedTask
    from zwheel.schedules.calendars import Calendar
    from zwheel.schedules.definition import Definition
    from zwheel.schedules.kinds import Kind

E = TypeVar("E")


class ScheduleOptions(TypedDict, total=False):
    """The policies of a schedule; what is left out has the default named here."""

    tz: str
    """IANA name of the zone whose wall clock it follows; UTC."""
    gap: str
    """A time that a change of clocks skips: run_after it, or skip; run_after."""
    fold: str
    """A time that a change of clocks repeats: first, second or both; first."""
    misfire: str
    """Occurrences that nothing could fire in time: skip, fire_once or fire_all; fire_once."""
    misfire_limit: int
    """For fire_all, how many run at the most; 100."""
    grace: Duration
    """How late the newest one may be and still count as on time; a minute."""
    window: Duration | None
    """Catch-up window: older missed ones are left out; None, however old."""
    overlap: str
    """When the run before still waits or runs: allow, skip, buffer_one or cancel_other; allow."""
    jitter: Duration
    """Fire up to this much later; 0."""
    calendar: Calendar | None
    """Blocked days and times of day."""
    on_blocked: str
    """On a blocked time: skip, or move to the next or previous working day; skip."""
    start: datetime | None
    end: datetime | None
    max_count: int | None
    queue: str | None
    retries: int | None
    timeout: Duration | None
    keep: Duration | None
    headers: Mapping[str, str] | None
    description: str


def make_definition(
    tasks: Mapping[str, BaseTask[Any, Any] | PublishedTask],
    codec: Codec,
    name: str,
    when: str | Kind,
    task: str | BaseTask[Any, Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **options: Unpack[ScheduleOptions],
) -> Definition:
    """Check and encode a schedule; a task among `tasks` gives its policy. Raises: InvalidInput and its kinds, in one sentence."""
    from zwheel.schedules.calendars import OnBlocked
    from zwheel.schedules.definition import Definition, Misfire, Overlap
    from zwheel.schedules.foreign import split_zone
    from zwheel.schedules.kinds import kind_from_text
    from zwheel.schedules.zones import Fold, Gap

    unknown = set(options) - set(ScheduleOptions.__annotations__)
    if unknown:
        cure = ": the zone is tz=" if "zone" in unknown else ""
        raise InvalidInput(f"schedule {name}: there is no option {', '.join(sorted(unknown))}{cure}")
    task_name = check_task(task if isinstance(task, str) else task.name)
    known = tasks.get(task_name)
    policy = known.policy if known is not None else TaskPolicy()
    if known is not None:
        known.check(args, kwargs or {})
    headers = dict(options.get("headers") or {})
    timeout = options.get("timeout")
    if timeout is not None:
        headers[TIMEOUT_HEADER] = str(duration_ms(timeout, what="timeout"))
    retries = options.get("retries")
    if known is None:
        headers = with_policy_header(headers, retries)
    retries = policy.retries if retries is None else retries
    try:
        check_retries(retries)
    except InvalidInput as error:
        raise InvalidInput(f"schedule {name}: {error}") from None
    keep, window = options.get("keep"), options.get("window")
    start, end = options.get("start"), options.get("end")
    keep_ms = policy.keep_ms if keep is None else duration_ms(keep, what="keep")
    if keep_ms is not None and keep_ms > MAX_KEEP_MS:
        raise InvalidInput(f"schedule {name}: keep is longer than the limit of 115 days")
    queue, tz = options.get("queue"), options.get("tz")
    if isinstance(when, (int, float, timedelta)):
        raise InvalidInput(f"schedule {name}: {when!r} is no rhythm: write it as text, such as '@every 90s'")
    if isinstance(when, str):
        when, named = split_zone(when)
        if named is not None and tz not in (None, named):
            raise InvalidInput(f"schedule {name}: it names two zones, {named} and {tz}: give one of them")
        tz = tz if named is None else named
    definition = Definition(
        name=check_name(name, "schedule"),
        queue=policy.queue if queue is None else QueueName(check_name(queue)),
        kind=kind_from_text(when, tz) if isinstance(when, str) else when,
        tz="UTC" if tz is None else tz,
        gap=_choice(Gap, options.get("gap", "run_after"), "gap"),
        fold=_choice(Fold, options.get("fold", "first"), "fold"),
        misfire=_choice(Misfire, options.get("misfire", "fire_once"), "misfire"),
        misfire_limit=options.get("misfire_limit", 100),
        grace_ms=duration_ms(options.get("grace", 60), what="grace"),
        window_ms=None if window is None else duration_ms(window, what="window"),
        overlap=_choice(Overlap, options.get("overlap", "allow"), "overlap"),
        jitter_ms=duration_ms(options.get("jitter", 0), what="jitter"),
        calendar=options.get("calendar"),
        on_blocked=_choice(OnBlocked, options.get("on_blocked", "skip"), "on_blocked"),
        start_ms=None if start is None else to_ms(start),
        end_ms=None if end is None else to_ms(end),
        max_count=options.get("max_count"),
        task=task_name,
        max_attempts=retries + 1,
        keep_ms=keep_ms,
        description=options.get("description", ""),
        payload=codec.encode(args, kwargs or {}, headers or None, context=f"{task_name}\nschedule {name}".encode()),
    )
    return definition.check()


def _choice(kind: Callable[[str], E], value: str, what: str) -> E:
    try:
        return kind(value)
    except ValueError:
        words = ", ".join(str(member) for member in kind)  # type: ignore[attr-defined]
        raise InvalidInput(f"{what}: {value!r} is none of {words}") from None
