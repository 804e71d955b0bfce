"""The root of the command line: which commands there are, the options they share, and how they are loaded.

`--help` must answer at once, so that a command's module is imported only when the command is named, and Redis and
rich only when it runs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Concatenate, ParamSpec, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from .coerce import lighten
from .context import Context, Shared

if TYPE_CHECKING:
    from typer._click import Command as AnyCommand
    from typer._click import Context as AnyContext
    from typer._click import HelpFormatter
    from typer._click import Parameter as AnyParameter

P = ParamSpec("P")
_PLAIN_TYPE = re.compile(r" <(?:str|list\[str\])>\Z")

#: Name of a command -> its module below this package, its line in `zwheel --help`.
COMMANDS: dict[str, tuple[str, str]] = {
    "enqueue": ("enqueue", "Enqueue one job, or many from JSONL."),
    "job": ("job", "Show, list, cancel, reschedule and await single jobs."),
    "queue": ("queue", "List, show, create, cut into shards, pause, resume, limit, purge and remove queues."),
    "task": ("task", "See the tasks that workers publish, and who runs them."),
    "day": ("day", "See what is on the wheel, per UTC day and hour."),
    "schedule": ("schedule.group", "Add, look at, change and explain what fires again and again."),
    "dead": ("dead", "List, show, redrive and purge dead jobs."),
    "worker": ("worker", "Run a worker."),
    "workers": ("workers", "See the workers that serve the queues."),
    "doctor": ("doctor", "Check the server and the queues' keys, and repair them."),
    "acl": ("acl", "Print the least rights of a Redis user."),
    "server": ("server", "Start, look at and stop the project's private server."),
    "dev": ("dev", "Private server and worker in one, reloaded on change."),
    "demo": ("demo.command", "Watch jobs fire on time while a worker is killed."),
    "verify": ("verify", "Decide from a history whether the promises held."),
    "completion": ("completion", "Print the completion script of a shell."),
}


def _shared(
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            "-u",
            metavar="URL",
            help="Redis: redis://, rediss://, redis+sentinel://, redis+cluster:// or unix://; else ZWHEEL_URL.",
        ),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Prefix of all keys; else zw.")
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Without a URL: start the project's private server.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON, lists as one object a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Write results and errors, no notes and no bars.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; NO_COLOR does the same.")] = False,
    tz: Annotated[
        str | None,
        typer.Option("--tz", metavar="ZONE", help="Show times in this zone too, and read --at in it."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a bulk change.")] = False,
    redis_timeout: Annotated[
        str | None,
        typer.Option("--redis-timeout", metavar="DURATION", help="How long Redis may take to answer; 10s."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Hold the signature of the options every command takes."""


_SHARED = [
    parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    for parameter in inspect.signature(_shared, eval_str=True).parameters.values()
]
SHARED_NAMES = frozenset(parameter.name for parameter in _SHARED)
_CONTEXT = inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


class Command(TyperCommand):
    """A command whose help keeps its own options apart from the shared ones."""

    #: Options that may stand alone: `--wait` means the value here, `--wait=30` its own.
    alone: ClassVar[dict[str, str]] = {}

    def get_params(self, ctx: AnyContext) -> list[AnyParameter]:
        """Give the parameters, `--help` among them."""
        return lighten(super().get_params(ctx))

    def parse_args(self, ctx: AnyContext, args: list[str]) -> list[str]:
        """Read the arguments; an option of `alone` without `=` gets its value."""
        end = args.index("--") if "--" in args else len(args)
        filled = [f"{arg}={self.alone[arg]}" if arg in self.alone else arg for arg in args[:end]]
        return super().parse_args(ctx, filled + args[end:])

    def format_options(self, ctx: AnyContext, formatter: HelpFormatter) -> None:
        """Write arguments, own options, shared options."""
        _format_options(self, ctx, formatter)


class Group(TyperGroup):
    """A group whose help keeps the shared options last."""

    def get_params(self, ctx: AnyContext) -> list[AnyParameter]:
        """Give the parameters, `--help` among them."""
        return lighten(super().get_params(ctx))

    def format_options(self, ctx: AnyContext, formatter: HelpFormatter) -> None:
        """Write the commands, then the shared options."""
        self.format_commands(ctx, formatter)
        _format_options(self, ctx, formatter)


class RootGroup(Group):
    """The root: knows its commands by name and loads the one that is called."""

    def list_commands(self, ctx: AnyContext) -> list[str]:
        """Name the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: AnyContext, cmd_name: str) -> AnyCommand | None:
        """Import the module of one command."""
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: AnyContext, formatter: HelpFormatter) -> None:
        """List the commands from the table, without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(self, ctx: AnyContext, args: list[str]) -> tuple[str | None, AnyCommand | None, list[str]]:
        """Find the command; a mistyped name gets the nearest ones as a hint."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=2)
            ctx.fail(f"No such command '{args[0]}'." + (f" Did you mean {' or '.join(near)}?" if near else ""))
        return super().resolve_command(ctx, args)


def load(name: str) -> AnyCommand:
    """Import the module of one command and build it: a group, or the one command that its app holds."""
    app: typer.Typer = import_module(f".{COMMANDS[name][0]}", __package__).app
    built = get_command(app)
    built.name = name
    return built


def _format_options(command: Any, ctx: AnyContext, formatter: HelpFormatter) -> None:
    arguments, own, shared = [], [], []
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if param.param_type_name == "argument":
            arguments.append((_PLAIN_TYPE.sub("", record[0]), record[1]))
        elif param.name in SHARED_NAMES or param.name == "help":
            shared.append(record)
        else:
            own.append(record)
    for title, records in (("Arguments", arguments), ("Options", own), ("Shared options", shared)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def _split_shared(values: dict[str, Any]) -> Shared:
    return Shared(**{name: values.pop(name) for name in SHARED_NAMES})


def _take_shared(**values: Any) -> None:
    ctx: typer.Context = values.pop("typer_context")
    ctx.obj = _split_shared(values).under(ctx.obj)


def _version(wanted: bool) -> None:
    if wanted:
        from zwheel._version import __version__

        typer.echo(f"zwheel {__version__}")
        raise typer.Exit


def _new_typer(cls: type[TyperGroup], help: str) -> typer.Typer:
    return typer.Typer(
        cls=cls,
        help=help,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    )


def group(help: str) -> typer.Typer:
    """Make the app of a group of commands, such as `zwheel job`; its module exports it as `app`."""
    app = _new_typer(Group, help)
    take = _with_signature(_take_shared, [])
    app.callback()(take)
    return app


def single() -> typer.Typer:
    """Make the app of a module that holds one command, such as `zwheel enqueue`; exported as `app`."""
    return _new_typer(Group, "")


def command(
    app: typer.Typer, name: str, *, examples: Sequence[str], cls: type[Command] = Command
) -> Callable[[Callable[Concatenate[Context, P], Awaitable[None] | None]], Callable[..., Awaitable[None] | None]]:
    """Register a function as a command of `app`; it takes a Context, then its own arguments and options.

    The shared options are added to it, its docstring is its help, `examples` are complete command lines.
    """
    epilog = "\b\n" + "\n".join(
        ["Example:" if len(examples) == 1 else "Examples:", *(f"  {line}" for line in examples)]
    )

    def register(
        function: Callable[Concatenate[Context, P], Awaitable[None] | None],
    ) -> Callable[..., Awaitable[None] | None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        call = cast(Callable[..., Awaitable[None] | None], function)

        def run(**values: Any) -> None:
            typer_context: typer.Context = values.pop("typer_context")
            shared = _split_shared(values).under(typer_context.obj)
            context = Context(shared, typer_context.command_path)
            context.execute(lambda: call(context, **values))

        run.__doc__ = function.__doc__
        app.command(name, cls=cls, epilog=epilog, help=inspect.getdoc(function))(_with_signature(run, own))
        return function

    return register


def _with_signature(function: Callable[..., None], own: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Give `function(**values)` the signature that Typer reads: the context, its own parameters, the shared ones."""
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    function.__annotations__ = {}
    function.__dict__["__signature__"] = inspect.Signature([_CONTEXT, *keyword_only, *_SHARED])
    return function


def build() -> AnyCommand:
    """Build the root command."""
    app = _new_typer(RootGroup, "Fire jobs at their time, on Redis or Valkey.")

    def root(**values: Any) -> None:
        values.pop("version")
        _take_shared(**values)

    version = inspect.Parameter(
        "version",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
        ],
    )
    epilog = "\b\nExample:\n  zwheel enqueue emails.send to=ann@example.com --in 10m\n  zwheel day ls"
    app.callback(epilog=epilog)(_with_signature(root, [version]))
    return get_command(app)
