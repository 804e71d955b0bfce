"""What a command that names a task says of who will run it: which worker published it, and who serves its queue."""

from __future__ import annotations

import logging
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from zwheel.errors import BrokerError, EmbeddedServerError, InvalidInput
from zwheel.info import WorkerState
from zwheel.published.catalogue import unknown_task
from zwheel.shell import DEFAULT_SHELL, SHELL_TASK, allows, digest, needed

from .context import Context, Refused
from .values import Word, read_words, task_arguments

if TYPE_CHECKING:
    from zwheel import Wheel
    from zwheel.info import Serving
    from zwheel.published.task import PublishedTask

T = TypeVar("T")
EXPOSED = "note: others can read a command line; give secrets with key:=@FILE, key:=@- or --jsonl"
#: Of so many tasks of a stream it is said that nobody serves them.
MOST_SAID = 20


def say_here() -> None:
    """Leave it to this command to say what nobody knows: its client would log it as well."""
    logging.getLogger("zwheel.client").setLevel(logging.ERROR)


@dataclass(slots=True)
class Call:
    """A call of a task, from the words of a command line. What they mean is sure once it is known what the task takes."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    words: Sequence[Word] = ()
    error: InvalidInput | None = None
    """Why the words cannot be read, as long as nothing is known of the task."""

    @classmethod
    def of(cls, ctx: Context, task: str, words: Sequence[str], exposed: str = EXPOSED) -> Call:
        """Read the words; a secret among them is warned of, with `exposed`. Raises: InvalidInput."""
        call = cls(task, [], {}, read_words(words))
        try:
            call.args, call.kwargs = task_arguments(call.words)
        except InvalidInput as error:
            call.error = error
        if any(word.is_secret for word in call.words):
            ctx.out.note(exposed)
        return call

    async def learn(self, wheel: Wheel) -> PublishedTask | None:
        """Read what workers publish of the task, and the words as it asks for them. Raises: InvalidInput, BrokerError."""
        known = None
        if self.task != SHELL_TASK:
            await wheel.learn(self.task)
            known = wheel.catalogue.get(self.task)
        if known is not None and known.signature is not None and self.words:
            self.args, self.kwargs = task_arguments(self.words, known.signature)
            self.error = None
        else:
            self.check()
        return known

    @property
    def command(self) -> dict[str, Any]:
        """What it runs, where that is a command."""
        return self.kwargs if self.task == SHELL_TASK else {}

    def check(self) -> None:
        """Raise InvalidInput for words that cannot be read without knowing the task."""
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def opened(ctx: Context, call: Call, *, patient: bool = False) -> AsyncIterator[Wheel]:
    """Open a client; without Redis, what is wrong with the words is said first."""
    try:
        async with ctx.wheel(patient=patient) as wheel:
            yield wheel
    except (BrokerError, EmbeddedServerError):
        call.check()
        raise


async def tried(ctx: Context, call: Call, look: Callable[[Wheel], Awaitable[T]]) -> T | None:
    """Look at what workers publish, for a command that sends nothing; None where Redis is away, which is said."""
    try:
        async with opened(ctx, call) as wheel:
            return await look(wheel)
    except (BrokerError, EmbeddedServerError) as error:
        if ctx.settings().url is not None:
            ctx.out.note(f"note: not compared with what workers publish: {error}")
        return None


async def troubles(
    wheel: Wheel, pairs: Iterable[tuple[str, str]], command: Mapping[str, Any] | None = None
) -> list[str]:
    """Say of each pair of queue and task why nobody would run it, a sentence each. Nothing where that is not known.

    command: what the one job runs, where that is a command.
    """
    return (await _looked(wheel, pairs, command))[0]


async def standing(
    wheel: Wheel, queue: str, task: str, command: Mapping[str, Any] | None = None
) -> tuple[list[str], str]:
    """Say of one pair the same, and that its queue is paused, where it is; '' where it is not, or may not be looked at."""
    found, serving = await _looked(wheel, [(queue, task)], command)
    one = serving.get((queue, task))
    is_paused = one is not None and one.paused
    return (
        found,
        f"queue {queue} is paused: nothing of it starts until `zwheel queue resume {queue}`" if is_paused else "",
    )


async def _looked(
    wheel: Wheel, pairs: Iterable[tuple[str, str]], command: Mapping[str, Any] | None
) -> tuple[list[str], Mapping[tuple[str, str], Serving]]:
    wanted = list(dict.fromkeys(pairs))
    try:
        serving = await wheel.serving(wanted)
        for (queue, task), one in serving.items():
            if task == SHELL_TASK and command and not one.nobody:
                return await _forbidden(wheel, queue, command), serving
    except BrokerError:
        return [], {}
    found = [_trouble(wheel, queue, task, serving.get((queue, task))) for queue, task in wanted]
    return list(dict.fromkeys(filter(None, found))), serving


async def _forbidden(wheel: Wheel, queue: str, command: Mapping[str, Any]) -> list[str]:
    """Say what a worker would have to allow, when each is known to refuse a command. Raises: BrokerError."""
    entries = needed(
        command.get("argv"), command.get("line"), command.get("env", {}), command.get("shell", DEFAULT_SHELL)
    )
    needs = set(map(digest, entries))
    for info in await wheel.workers(queue):
        may = info.allows is None or allows(info.allows, needs)
        able = info.tasks is None or (SHELL_TASK in info.tasks and may)
        if able and info.state is not WorkerState.DEAD:
            return []
    missing = " ".join(f"--allow {shlex.quote(entry)}" for entry in entries)
    return [f"no live worker of queue {queue} may run it, as one with {missing} does"]


def _trouble(wheel: Wheel, queue: str, task: str, serving: Serving | None) -> str:
    if serving is None or not serving.nobody:
        return ""
    known = wheel.catalogue.get(task)
    if task == SHELL_TASK:
        return f"no live worker that may run commands serves queue {queue}, as one with --allow-shell does"
    if known is None:
        others = wheel.catalogue.others(task)
        if others or not serving.workers:
            who = "" if serving.workers else f", and no live worker serves queue {queue}"
            return f"{unknown_task(task, others)}{who}"
    if not serving.workers:
        elsewhere = known is not None and known.policy.queue != queue
        where = f", while workers publish {task} for queue {known.policy.queue}" if known and elsewhere else ""
        return f"no live worker serves queue {queue}{where}"
    return f"no live worker of queue {queue} knows the task {task}"


def say(ctx: Context, found: list[str], *, strict: bool) -> None:
    """Say it on stderr, a line each. Raises: Refused, before anything is sent, when the command is strict."""
    if found and strict:
        raise Refused(f"{found[0]}; nothing was sent", troubles=found)
    for text in found[:MOST_SAID]:
        waits = ": the job waits until one does" if "no live worker" in text else ""
        ctx.out.note(f"note: {text}{waits}")
    if len(found) > MOST_SAID:
        ctx.out.note(f"note: and {len(found) - MOST_SAID:,} more")


def described(found: list[str]) -> dict[str, Any]:
    """The same for --json."""
    return {"unserved": found} if found else {}
