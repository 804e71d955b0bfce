"""`zwheel server`: the project's private Redis or Valkey."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .app import command, group
from .context import Context
from .exits import ExitCode
from .output import Cell

if TYPE_CHECKING:
    from zwheel.config import Settings
    from zwheel.embedded.server import Server

app = group("Start, look at and stop the project's private server.")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@command(app, "start", examples=["zwheel server start", "ZWHEEL_HOME=~/queues zwheel server start --json"])
def start(ctx: Context) -> None:
    """Start the private server of this project, or say that it runs.

    The project is the nearest directory, from here up, with zwheel.toml, pyproject.toml or .git, else this directory. Each
    project has a server of its own; ZWHEEL_HOME names one for several. It stays up after this command, keeps its jobs on disk, and listens on a Unix socket that only you can open.
    """
    from zwheel import embedded

    settings = ctx.settings()
    server = embedded.start(settings.home)
    if ctx.json:
        ctx.out.value({**_document(server), "started": server.started})
    else:
        verb = "started" if server.started else "already runs:"
        ctx.out.line(
            f"{verb} {server} at {server.url} (pid {server.pid}, data in {server.home}){settings.of_project()}"
        )
    _say_when_unused(ctx, settings)


@command(app, "status", examples=["zwheel server status", "zwheel server status --json"])
def status(ctx: Context) -> None:
    """Show the private server; the exit code is 3 when it does not run."""
    from zwheel import embedded

    settings = ctx.settings()
    server = embedded.status(settings.home)
    if ctx.json:
        data = data_bytes(settings.home)
        found = {"running": False, "home": str(settings.home)} if server is None else _document(server)
        ctx.out.value({**found, "data_bytes": data})
    elif server is None:
        ctx.out.fields([("state", Cell("not running", "yellow")), *_whose(settings), *_on_disk(settings.home)])
    else:
        from .when import human_duration

        ctx.out.fields(
            [
                ("state", Cell("running", "green")),
                ("url", server.url),
                ("server", f"{server} ({server.binary})"),
                ("pid", str(server.pid)),
                ("up for", human_duration(server.uptime_s * 1000)),
                *_whose(settings),
                *_on_disk(server.home),
            ]
        )
    _say_when_unused(ctx, settings)
    if server is None:
        raise ctx.fail(ExitCode.UNREACHABLE)


@command(app, "stop", examples=["zwheel server stop"])
def stop(ctx: Context) -> None:
    """Stop the private server in order; its jobs stay on disk for the next start."""
    from zwheel import embedded

    settings = ctx.settings()
    home = settings.home
    stopped = embedded.stop(home)
    if ctx.json:
        ctx.out.value({"stopped": stopped, "home": str(home)})
    elif stopped:
        ctx.out.line(f"stopped; the jobs stay in {home}{settings.of_project()}")
    else:
        ctx.out.note(f"no private server runs in {home}{settings.of_project()}")


@command(app, "reset", examples=["zwheel server reset", "zwheel server reset --yes"])
def reset(ctx: Context) -> None:
    """Stop the private server and delete all of its jobs."""
    from zwheel import embedded

    settings = ctx.settings()
    home = settings.home
    size = data_bytes(home)
    if size or embedded.status(home) is not None:
        where = f"{home}{settings.of_project()}"
        ctx.confirm(f"delete all jobs of the private server in {where} ({human_bytes(size)} on disk)", size)
    existed = embedded.reset(home)
    if ctx.json:
        ctx.out.value({"reset": existed, "home": str(home), "deleted_bytes": size})
    elif existed:
        ctx.out.line(f"deleted {human_bytes(size)} of jobs in {home}")
    else:
        ctx.out.note(f"there was nothing in {home}")


def data_bytes(home: Path) -> int:
    """Count the bytes of the append-only file; 0 without one."""
    from zwheel.embedded.home import DATA

    total = 0
    for path in (home / DATA).rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def human_bytes(count: int) -> str:
    """Write a size for people: `12 B`, `3.4 MiB`."""
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def _document(server: Server) -> dict[str, object]:
    return {
        "running": True,
        "url": server.url,
        "pid": server.pid,
        "family": server.family,
        "version": server.version,
        "binary": str(server.binary),
        "home": str(server.home),
        "uptime_s": server.uptime_s,
    }


def _on_disk(home: Path) -> list[tuple[str, str]]:
    return [("data", f"{home} ({human_bytes(data_bytes(home))})")]


def _whose(settings: Settings) -> list[tuple[str, str]]:
    return [] if settings.project is None else [("project", str(settings.project))]


def _say_when_unused(ctx: Context, settings: Settings) -> None:
    """A URL that is set somewhere wins over the private server: say so before somebody wonders."""
    if settings.url is not None:
        ctx.out.note(f"note: {settings.source} is set, so other commands use that server, not the private one")
    elif settings.production:
        ctx.out.note("note: ZWHEEL_ENV is production, so only zwheel server and zwheel dev use the private server")
