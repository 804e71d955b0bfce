"""`zwheel task`: the tasks that workers publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from zwheel.errors import UnknownTask
from zwheel.keys import check_task

from .app import command, group
from .context import Context
from .output import Cell, Column, Row
from .show import iso, now_ms, relative, unreadable_document, unreadable_row
from .when import human_duration

if TYPE_CHECKING:
    from zwheel.info import Serving
    from zwheel.published.task import PublishedTask

app = group("See the tasks that workers publish, and who runs them.")

Name = Annotated[str, typer.Argument(metavar="TASK", help="The task's name.")]


def task_document(task: PublishedTask, serving: Serving | None) -> dict[str, Any]:
    """Give what is known of a task as JSON."""
    from zwheel.published.shapes import code_of

    signature = task.signature
    return {
        "task": task.name,
        "queue": task.policy.queue,
        "retries": task.policy.retries,
        "timeout_ms": task.policy.timeout_ms,
        "keep_ms": task.policy.keep_ms,
        "process": task.policy.process,
        "about": task.about,
        "call": None if signature is None else signature.title,
        "parameters": None
        if signature is None
        else [
            {
                "name": one.name,
                "kind": one.kind,
                "required": one.required,
                "type": code_of(one.shape),
                "shape": one.shape,
            }
            for one in signature.parameters
        ],
        "app": task.app,
        "version": task.version,
        "seen_at": iso(task.seen_ms),
        "seen_at_ms": task.seen_ms,
        "workers": None if serving is None else serving.knowing,
        "workers_of_queue": None if serving is None else serving.workers,
    }


@command(app, "ls", examples=["zwheel task ls", "zwheel task ls --queue emails --json | jq .task"])
async def ls(
    ctx: Context,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="NAME", help="Only tasks of this queue.")
    ] = None,
) -> None:
    """List the tasks that workers publish, with the queue and the policy that their jobs get.

    A task is listed until no worker has published it for 30 days. WORKERS are the living ones that serve its queue and
    know it.
    """
    async with ctx.wheel() as wheel:
        tasks = await wheel.published_tasks()
        tasks[:] = [task for task in tasks if queue in (None, task.policy.queue)]
        serving = await wheel.serving((task.policy.queue, task.name) for task in tasks)
    if ctx.json:
        for task in tasks:
            ctx.out.value(task_document(task, serving.get((task.policy.queue, task.name))))
        for one in tasks.unreadable:
            ctx.out.value(unreadable_document(one, "task"))
        return
    now = now_ms(ctx)
    rows: list[Row] = [
        [
            task.name,
            task.policy.queue,
            f"{task.policy.retries:,}",
            "-" if task.policy.timeout_ms is None else human_duration(task.policy.timeout_ms),
            _workers(serving.get((task.policy.queue, task.name))),
            relative(task.seen_ms, now),
            task.app,
            task.about,
        ]
        for task in tasks
    ]
    columns = [
        Column("task"),
        Column("queue"),
        Column("retries", right=True, drop=2),
        Column("timeout", right=True, drop=3),
        Column("workers", right=True),
        Column("published", drop=1),
        Column("app", flexible=True, drop=4),
        Column("", flexible=True, drop=5),
    ]
    rows += [unreadable_row(columns, one) for one in tasks.unreadable]
    ctx.out.table(columns, rows, empty="no worker has published a task yet: start one with zwheel worker")


def _workers(serving: Serving | None) -> str | Cell:
    if serving is None:
        return "?"
    if serving.nobody:
        return Cell("0", "red")
    return f"{serving.knowing:,}" + (f" (+{serving.silent:,}?)" if serving.silent else "")


@command(app, "show", examples=["zwheel task show shop.remind"])
async def show(ctx: Context, name: Name) -> None:
    """Show one task: what it takes, its policy, and who runs it.

    Exit code 4 when no worker has published it.
    """
    from zwheel.published.catalogue import unknown_task

    async with ctx.wheel() as wheel:
        await wheel.learn(check_task(name))
        task = wheel.catalogue.get(name)
        if task is None:
            raise UnknownTask(unknown_task(name, wheel.catalogue.others(name)))
        serving = (await wheel.serving([(task.policy.queue, name)])).get((task.policy.queue, name))
    if ctx.json:
        ctx.out.value(task_document(task, serving))
        return
    ctx.out.fields(list(_fields(ctx, task, serving)))
    example = _example(task)
    ctx.out.note(f"enqueue it with: zwheel enqueue {example}")


def _fields(ctx: Context, task: PublishedTask, serving: Serving | None) -> Any:
    from zwheel.published.shapes import code_of

    policy = task.policy
    yield "task", task.name
    if task.about:
        yield "about", task.about
    yield "queue", policy.queue
    yield "retries", f"{policy.retries:,}"
    yield "timeout", "none" if policy.timeout_ms is None else human_duration(policy.timeout_ms)
    yield "keep", "as zwheel does" if policy.keep_ms is None else human_duration(policy.keep_ms)
    if policy.process:
        yield "process", "in a process of its own"
    if task.signature is None:
        yield "takes", "not known"
    else:
        stars = {"args": "*", "kwargs": "**"}
        lines = [
            f"{stars.get(one.kind, '')}{one.name}: {code_of(one.shape)}{'' if one.required or one.kind in stars else ', optional'}"
            for one in task.signature.parameters
        ]
        yield "takes", lines or "nothing"
    if serving is not None:
        many = f"{serving.knowing:,} of the {serving.workers:,} that serve {policy.queue}"
        yield "workers", Cell(f"none of {serving.workers:,} of queue {policy.queue}", "red") if serving.nobody else many
    yield "published", f"{relative(task.seen_ms, now_ms(ctx))} by {task.app or 'a worker'}, zwheel {task.version}"


def _example(task: PublishedTask) -> str:
    """A command that enqueues it, with what must be given."""
    parameters = () if task.signature is None else task.signature.parameters
    words = ("VALUE" if one.kind == "positional" else f"{one.name}=VALUE" for one in parameters if one.required)
    return " ".join([task.name, *words])
