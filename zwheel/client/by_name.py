"""Jobs of tasks whose code is not here: what workers publish of a task stands for its code.

A job may be made before the client has read what workers published of its task. Then it keeps its task and options, to
be made again afterwards, and has a header that tells the worker to apply the policy of its own code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zwheel.calls import NewJob
from zwheel.client.tasks import make_job
from zwheel.payload.codec import Codec, body_context
from zwheel.policy import BY_JOB, BY_TASK, POLICY_HEADER, JobOptions, TaskPolicy
from zwheel.published.task import PublishedTask


class Unsettled(NamedTuple):
    """The task and the options of a job that was made while nothing was known of its task."""

    task: str
    options: JobOptions


def make_by_name(
    task: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: JobOptions, known: PublishedTask | None, codec: Codec
) -> NewJob:  # fmt: skip
    """Check and encode one job by its task's name. Raises: BadArguments, PayloadError, InvalidName, InvalidTime."""
    if known is not None:
        job = make_job(task, args, kwargs, options, known.policy, codec)
        known.check(args, kwargs)
        return job
    headers = with_policy_header(options.get("headers"), options.get("retries"))
    open_options: JobOptions = {**options, "headers": headers}
    job = make_job(task, args, kwargs, open_options, TaskPolicy(), codec)
    job.unsettled = Unsettled(task, options)
    return job


def with_policy_header(headers: Mapping[str, str] | None, retries: int | None) -> dict[str, str]:
    """The headers of a job whose task the client does not know: the worker that knows the task checks the arguments.

    The number of retries, if it was not given, is the worker's too.
    """
    return {**(headers or {}), POLICY_HEADER: BY_TASK if retries is None else BY_JOB}


def settle(job: NewJob, known: PublishedTask, codec: Codec) -> NewJob:
    """Make a job again, now that it is known what workers publish of its task. Raises: as `make_by_name`."""
    task, options = job.unsettled
    args, kwargs, headers = codec.decode(job.body, context=body_context(task, job.id) if codec.binds else b"")
    headers.pop(POLICY_HEADER, None)
    # Its timeout and when it expires are among the headers already.
    again = options.copy()
    again["headers"], again["timeout"], again["expires"] = headers, None, None
    made = make_job(task, args, kwargs, again, known.policy, codec, job.id)
    known.check(args, kwargs)
    return made
