"""What is said when nothing was stored: the job that holds the id or the unique key, its state, and the cure."""

from __future__ import annotations

from zwheel.job import Enqueued, JobState

from .context import Context
from .exits import ExitCode

#: What its holder does to keep the id, by its state; and what its user can do.
_CURES = {
    JobState.SCHEDULED: "to move it: zwheel job reschedule {id}; for another in its place: zwheel job cancel {id}, and enqueue again",
    JobState.PROCESSING: "it goes on; when it has ended, enqueue again with --replace",
    JobState.DONE: "for a new one in its place: --replace",
    JobState.DEAD: "for a new one in its place: --replace; to run it again: zwheel dead redrive {id}",
}
_KEY_CURES = {
    JobState.SCHEDULED: "zwheel job cancel {id} frees the key",
    JobState.PROCESSING: "the key is free when it has ended",
    JobState.DEAD: "zwheel dead purge {id} frees the key",
}
_WINDOW = "the key is free when the time of --within is over"
_UNREADABLE = "this version cannot read its record, and leaves it alone: see zwheel doctor"


def say_held(ctx: Context, answer: Enqueued, job_id: str | None, *, replace: bool) -> ExitCode:
    """Say on stderr why nothing was stored. job_id: the id that was asked for."""
    if answer.job_id == job_id:
        sentence = f"job {answer.job_id} exists in {answer.queue} and is {answer.state}"
        stuck = answer.state is JobState.CANCELLED or (replace and answer.state.terminal)
        cure = _UNREADABLE if stuck else _CURES[answer.state]
    else:
        sentence = f"job {answer.job_id} holds the unique key in {answer.queue} and is {answer.state}"
        cure = _KEY_CURES.get(answer.state, _WINDOW)
    code = ExitCode.REFUSED
    ctx.out.error(
        f"nothing was stored: {sentence}; {cure.format(id=answer.job_id)}",
        kind="JobExists" if answer.job_id == job_id else "KeyHeld", job_id=answer.job_id, state=str(answer.state),
        exit=int(code),
    )  # fmt: skip
    return code
