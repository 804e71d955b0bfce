"""`zwheel worker`: run the tasks of an app."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from zwheel.errors import ConfigError
from zwheel.outside import escaped
from zwheel.schedules.durations import parse_duration

from .app import command, single
from .context import Context
from .values import size

app = single()
#: A worker without a job uses about half of that, bytes.
LEAST_RSS = 64 << 20

AllowShell = Annotated[
    bool, typer.Option("--allow-shell", help="Run commands too: jobs of zwheel enqueue -- ...; needs --allow.")
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="COMMAND",
        help="A command that jobs may run: a program with any arguments, a whole line for a shell, NAME= for a "
        "variable, '*' for everything; may be repeated.",
    ),
]


def allowed_commands(allow_shell: bool, allow: list[str] | None) -> list[str]:
    """Give what jobs may run; empty: no commands. Raises: ConfigError when one option is given without the other."""
    if allow_shell and not allow:
        raise ConfigError("--allow-shell needs --allow: name each program or line that jobs may run, or '*' for all")
    if allow and not allow_shell:
        raise ConfigError("--allow needs --allow-shell, without which no commands are run")
    return allow or []


@command(
    app,
    "worker",
    examples=[
        "zwheel worker app:wheel",
        "zwheel worker shop.tasks:wheel --queue emails --queue reports --concurrency 100 --processes 2",
        "zwheel worker --allow-shell --allow backup.sh --allow 'pg_dump shop | gzip > shop.gz'",
    ],
)
def worker(
    ctx: Context,
    target: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="The wheel, as module:attribute; else from zwheel.toml.")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="MODULE", help="Import this module for its tasks too; may be repeated."),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue", "-q", metavar="NAME", help="Serve this queue; may be repeated. Else the queues of the tasks."
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", metavar="N", help="Jobs that each process runs at a time.")
    ] = 100,
    processes: Annotated[int, typer.Option("--processes", "-p", metavar="N", help="Worker processes.")] = 1,
    task_processes: Annotated[
        int,
        typer.Option(
            "--task-processes",
            metavar="N",
            help="Processes that each worker process has for tasks with process=True; 0: the CPUs, shared by all.",
        ),
    ] = 0,
    lease: Annotated[
        str, typer.Option(metavar="DURATION", help="How long a dead worker's job stays with it at the most.")
    ] = "30s",
    drain: Annotated[
        str, typer.Option(metavar="DURATION", help="How long running jobs may take to end after SIGTERM.")
    ] = "30s",
    reap: Annotated[str, typer.Option(metavar="DURATION", help="How often to look for jobs of dead workers.")] = "5s",
    unknown_ttl: Annotated[
        str, typer.Option(metavar="DURATION", help="How long a job that no worker can run waits before it is dead.")
    ] = "10m",
    dead_keep: Annotated[str, typer.Option(metavar="DURATION", help="How long a dead job is kept.")] = "90d",
    dead_max: Annotated[int, typer.Option(metavar="N", help="How many dead jobs a queue keeps.")] = 10_000,
    prefetch: Annotated[
        int, typer.Option(metavar="N", help="How many jobs to claim ahead at the most, where each takes only a few ms.")
    ] = 200,
    burst: Annotated[
        bool, typer.Option("--burst", help="End as soon as nothing is due any more, with exit code 0.")
    ] = False,
    max_jobs: Annotated[
        int,
        typer.Option(
            "--max-jobs",
            metavar="N",
            help="Each process takes N jobs at the most and ends; with --processes another one starts. 0: no limit.",
        ),
    ] = 0,
    max_rss: Annotated[
        str | None,
        typer.Option(
            "--max-rss",
            metavar="SIZE",
            help="How much memory each process may use, such as 500M: before it uses more, another takes its place.",
        ),
    ] = None,
    accept_data_loss: Annotated[
        bool, typer.Option("--accept-data-loss", help="Work also on a Redis whose eviction policy may delete jobs.")
    ] = False,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner",
            metavar="NAME",
            help="Who owns the schedules that the app declares; else the app's name and queue.",
        ),
    ] = None,
    allow_shell: AllowShell = False,
    allow: Allow = None,
    uvloop: Annotated[bool, typer.Option("--uvloop", help="Use uvloop; needs pip install zwheel[uvloop].")] = False,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="text or json, one record a line.  [default: text]")
    ] = None,
    log_done: Annotated[bool, typer.Option("--log-done", help="Log each job that ended well, too.")] = False,
) -> None:
    """Run the tasks of an app until SIGTERM, SIGHUP or Ctrl-C, which drains; a second one stops at once.

    Any number of workers may serve a queue, started and stopped at will. With --processes a supervisor starts a
    process again when it dies. --burst works on what is due and ends. Without a URL and on a terminal, the project's private server is started.
    With --allow-shell no APP is needed: anyone who can enqueue can then run what --allow names, as this user.
    """
    from zwheel import Wheel
    from zwheel.config import resolve_url
    from zwheel.workers import WorkerSettings
    from zwheel.workers.app import load_app
    from zwheel.workers.process import serve, set_up_logging
    from zwheel.workers.settings import refuse_memory

    _check(log_level, log_format, processes)
    most_rss = _most_rss(max_rss, burst=burst)
    commands = allowed_commands(allow_shell, allow)
    settings = ctx.settings()
    name = target or settings.app
    if name is None and not commands:
        raise ConfigError("which app? Name it as module:attribute, or set app in zwheel.toml")
    wheel = load_app(name, include or ()) if name is not None else Wheel()
    wheel.configure(owner=owner)
    set_up_logging(log_level, log_format)
    if commands:
        from zwheel.workers.shell import register_shell

        register_shell(wheel, commands)
    log = escaped("zwheel.worker")
    if not wheel.tasks:
        log.warning(
            "%s has no tasks, so this worker can run no job: import the modules that define them where the wheel is made, "
            "or name them with Wheel(include=[...]) or --include",
            name,
        )
    own = ctx.shared.url is not None or not wheel.has_url
    refuse_memory(settings.url if own else wheel.resolve()[0])
    if own:
        start = ctx.shared.embedded or sys.stdin.isatty()
        url = resolve_url(settings, start_embedded=start, say=log.info)
        wheel.configure(url=url, namespace=ctx.shared.namespace)
    queues = tuple(queue or dict.fromkeys(str(task.policy.queue) for task in wheel.tasks.values()) or ("default",))
    worker_settings = WorkerSettings(
        queues=queues, concurrency=concurrency, prefetch=prefetch, task_processes=task_processes, lease_ms=parse_duration(lease),
        drain_ms=parse_duration(drain), reap_ms=parse_duration(reap), unknown_ttl_ms=parse_duration(unknown_ttl),
        dead_age_ms=parse_duration(dead_keep), most_dead=dead_max, accept_data_loss=accept_data_loss, log_done=log_done,
        burst=burst, max_jobs=max_jobs,
    )  # fmt: skip
    if processes == 1 and not most_rss:
        code = serve(wheel, worker_settings, uvloop=uvloop)
    else:
        import asyncio

        from zwheel.workers.isolated import cpus
        from zwheel.workers.supervisor import Supervisor

        words = _one_process(sys.argv[1:])
        if not task_processes:
            words += ["--task-processes", str(max(1, cpus() // processes))]
        supervisor = Supervisor(
            words,
            processes,
            worker_settings.drain_ms,
            burst=burst,
            renews=max_jobs > 0 and not burst,
            max_rss=most_rss,
        )
        code = asyncio.run(supervisor.run())
    if code:
        raise typer.Exit(code)


def _check(level: str | None, form: str | None, processes: int) -> None:
    if level is not None and level.lower() not in ("debug", "info", "warning", "error"):
        raise ConfigError(f"--log-level {level}: choose debug, info, warning or error")
    if form not in (None, "text", "json"):
        raise ConfigError(f"--log-format {form}: choose text or json")
    if processes < 1:
        raise ConfigError("--processes: must be at least 1")


def _most_rss(text: str | None, *, burst: bool) -> int:
    """How much memory each process may use, bytes; 0: as much as it likes. Raises: ConfigError."""
    if text is None:
        return 0
    most = size(text, "--max-rss")
    if most < LEAST_RSS:
        raise ConfigError(f"--max-rss {text}: a worker needs 64M at the least to do anything")
    if burst:
        raise ConfigError("--max-rss and --burst: a burst ends by itself, and nothing takes its place")
    return most


def _one_process(arguments: list[str]) -> list[str]:
    """The command line of a child: the same, with one process, and nobody over it."""
    kept: list[str] = []
    skip = False
    for word in arguments:
        if skip:
            skip = False
        elif word in ("--processes", "-p", "--max-rss"):
            skip = True
        elif not word.startswith(("--processes=", "--max-rss=")) and not (word.startswith("-p") and word[2:].isdigit()):
            kept.append(word)
    return [sys.executable, "-P", "-m", "zwheel.cli", *kept]
