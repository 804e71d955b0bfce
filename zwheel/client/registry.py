"""What the async and the sync wheel share: their settings, their tasks, and how a call by name becomes a job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from zwheel.broker.address import mask_url
from zwheel.calls import NewJob, Session
from zwheel.client.by_name import make_by_name, settle
from zwheel.client.declare import ScheduleOptions, make_definition
from zwheel.client.functions import described, same_function
from zwheel.client.hooks import Hook, make_hook
from zwheel.client.tasks import BaseTask, make_job
from zwheel.errors import ConfigError
from zwheel.job import Durability
from zwheel.keys import check_name
from zwheel.payload.codec import DEFAULT, MOST, Codec
from zwheel.payload.travel import check_travel
from zwheel.plain import counted
from zwheel.policy import JobOptions, check_options
from zwheel.published.catalogue import Catalogue

if TYPE_CHECKING:
    from zwheel.history import Recorder
    from zwheel.published.task import PublishedTask
    from zwheel.schedules.definition import Definition
    from zwheel.schedules.kinds import Kind

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """Settings and tasks of one application. Opens no connection by itself."""

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        codec: Codec = DEFAULT,
        timeout_s: float = 10.0,
        give_up_s: float = 5.0,
        history: str | PathLike[str] | None = None,
        include: Sequence[str] = (),
        owner: str | None = None,
        strict: bool = False,
        durable: str = "memory",
    ) -> None:
        """Keep the settings.

        Args:
            url: redis://, rediss://, unix:// or memory://; None: ZWHEEL_URL, REDIS_URL, zwheel.toml, then the
                project's private server if it runs.
            namespace: Prefix of every key; None: from zwheel.toml, else `zw`.
            timeout_s: How long one command may take.
            give_up_s: How long a call goes on trying while Redis is away, before it raises.
            history: A directory for a history of all that is done, for `zwheel verify`; None: that of ZWHEEL_HISTORY,
                else none is kept.
            include: Modules that define further tasks, as `shop.jobs`: a worker of this application imports them too.
            owner: Whose the schedules are that are declared here; None: of the application's name and their queue.
                Services that share both need an owner each.
            strict: Refuse to enqueue by name what no worker has published (UnknownTask); else that is logged.
            durable: How safely jobs are to be stored before an enqueue returns, where the job does not say it: `memory`,
                `fsynced` (in the append-only file of the server) or `replicated(N)` (on N replicas). The server has a third
                of `give_up_s` to confirm it, then NotDurable is raised.

        Raises: ConfigError, InvalidName, InvalidInput.
        """
        if codec.limit > MOST:
            raise ConfigError(f"a payload limit of {codec.limit:,} bytes is too large: use at most {MOST:,}")
        self._url = url
        self._namespace = check_name(namespace, "namespace") if namespace is not None else None
        self.codec = codec
        self.timeout_s = timeout_s
        self.give_up_s = give_up_s
        self.history = history
        self.include = (include,) if isinstance(include, str) else tuple(include)
        self.tasks: dict[str, BaseTask[Any, Any]] = {}
        #: The schedules that this application declares, by name: a worker syncs them when it starts.
        self.declared: dict[str, Definition] = {}
        #: What a worker process does at its start and its end.
        self.hooks: list[Hook] = []
        #: Whose they are, when that was said; else see `owner_of`.
        self.owner = owner or ""
        self.strict = strict
        #: None: as the server takes it, with nothing asked.
        self.durable = Durability.of(durable) or None
        #: Digests of what its workers let commands be, where they run commands at all.
        self.allows: frozenset[str] = frozenset()
        #: What workers published of tasks whose code is not here.
        self.catalogue = Catalogue()
        #: The application's name: `zwheel worker` calls it as its command line does.
        self.app = ""

    def resolve(self) -> tuple[str, str]:
        """Find the URL and the namespace: what was given, else the environment and the settings file.

        Raises: ConfigError, BrokerUnavailable when nothing is configured and no private server runs.
        """
        if self._url is not None and self._namespace is not None:
            return self._url, self._namespace
        from zwheel.config import load_settings, resolve_url

        settings = load_settings(url=self._url, namespace=self._namespace)
        return resolve_url(settings, start_embedded=False), settings.namespace

    def session(self, namespace: str) -> Session:
        """Make the session of one connection."""
        session = Session(namespace)
        # Two of them have to fit in: behind a script that is not loaded yet, and behind it when it is.
        session.confirm_ms = max(100, int(333 * min(self.give_up_s, self.timeout_s)))
        return session

    def recorder(self, session: Session) -> Recorder | None:
        """Make what writes the history of one session; None when none is kept. Raises: ConfigError."""
        directory = self.history or os.environ.get("ZWHEEL_HISTORY")
        if not directory:
            return None
        from zwheel.history import History, Recorder

        return Recorder(History.of(directory), session)

    @property
    def has_url(self) -> bool:
        """Whether a URL was given where the wheel was made."""
        return self._url is not None

    def configure(self, url: str | None = None, namespace: str | None = None, owner: str | None = None) -> None:
        """Fill in what was left open when the wheel was made, as the command line does, or choose another Redis.

        Raises: ConfigError when the wheel is connected elsewhere already: close it first.
        """
        for used_url, used_namespace in self._connections():
            if (url or used_url, namespace or used_namespace) != (used_url, used_namespace):
                raise ConfigError(
                    f"this wheel is connected to {mask_url(used_url)}, namespace {used_namespace}: close it before you "
                    "configure it anew"
                )
        self.owner = self.owner if owner is None else owner
        self._url = self._url if url is None else url
        self._namespace = self._namespace if namespace is None else check_name(namespace, "namespace")

    def _connections(self) -> Iterator[tuple[str, str]]:
        """The URL and the namespace of each connection that is open."""
        yield from ()

    def owner_of(self, queue: str) -> str:
        """Whose a schedule is that is declared here for this queue."""
        return self.owner or f"{self.app}@{queue}"

    @property
    def owners(self) -> frozenset[str]:
        """All owners that schedules declared here can have."""
        queues = {str(task.policy.queue) for task in self.tasks.values()}
        queues |= {str(one.queue) for one in self.declared.values()}
        return frozenset({self.owner} if self.owner else map(self.owner_of, queues))

    def register(self, task: BaseTask[Any, Any]) -> None:
        """Add a task. Raises: ConfigError when its name is taken by another function."""
        known = self.tasks.get(task.name)
        if known is not None and not same_function(known.function, task.function):
            raise ConfigError(
                f"two functions are registered as task {task.name!r}, {described(known.function)} and "
                f"{described(task.function)}: give one of them another name="
            )
        self.tasks[task.name] = task

    def on_startup(self, function: F) -> F:
        """Call this function when a worker process starts, before it claims a job. Async or not, without arguments.

        When it raises, the process ends; a supervisor tries again. Those of the wheel are called in the order in which they stand.
        """
        self.hooks.append(make_hook("on_startup", function))
        return function

    def on_shutdown(self, function: F) -> F:
        """Call this function when a worker process ends, after its last job. The last one that was declared is called first."""
        self.hooks.append(make_hook("on_shutdown", function))
        return function

    def lifespan(self, function: F) -> F:
        """Run a generator function with one `yield`: what stands before it at the start of a worker process, the rest at its end."""
        self.hooks.append(make_hook("lifespan", function))
        return function

    def new_job(
        self,
        task: str | BaseTask[Any, Any],
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[JobOptions],
    ) -> NewJob:
        """Check and encode one job by its task's name; the task's code need not be here.

        Where the task is registered here, its policy holds and its signature is checked; else the policy and signature
        that workers published, which are looked up when the job is enqueued if they are not known yet. options: see JobOptions.
        Raises: BadArguments, PayloadError, InvalidName, InvalidTime.
        """
        name = task if isinstance(task, str) else task.name
        known = self._task(task)
        check_options(options)
        if known is None:
            return make_by_name(name, args, kwargs or {}, options, self.catalogue.get(name), self.codec)
        known.signature.check(args, kwargs or {})
        job = make_job(name, args, kwargs or {}, options, known.policy, self.codec)
        check_travel(known.signature, args, kwargs or {})
        return job

    def _settled(self, jobs: Sequence[NewJob]) -> list[NewJob]:
        """Make those jobs again that were made before it was known what workers publish of their tasks.

        Raises: UnknownTask, BadArguments.
        """
        found = []
        for job in jobs:
            if job.unsettled is not None:
                known = self.catalogue.get(job.unsettled.task)
                if known is not None:
                    job = settle(job, known, self.codec)
                else:
                    self.catalogue.unknown(job.unsettled.task, job.unsettled.options.get("queue"), strict=self.strict)
            found.append(job)
        return found

    def new_schedule(
        self,
        name: str,
        when: str | Kind,
        task: str | BaseTask[Any, Any],
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> Definition:
        """Check and encode a schedule, for `add_schedule`, `edit_schedule` and `sync_schedules`.

        when: a cron line of five fields, or of six with seconds first; `@daily` and its like; `@every 90s`;
        `every 2 weeks on tue at 09:00`; `at 2026-12-01T09:00Z, ...`. options: see ScheduleOptions.
        Raises: InvalidTime, InvalidName, BadArguments, PayloadError, InvalidInput.
        """
        return make_definition(self._knowledge(task), self.codec, name, when, task, args, kwargs, **options)

    def _knowledge(self, task: str | BaseTask[Any, Any]) -> Mapping[str, BaseTask[Any, Any] | PublishedTask]:
        """The registered or published task, under its name; empty when neither is known."""
        name = task if isinstance(task, str) else task.name
        known = self._task(task) or self.catalogue.get(name)
        return {} if known is None else {name: known}

    def _task(self, task: str | BaseTask[Any, Any]) -> BaseTask[Any, Any] | None:
        """The task itself: of this wheel, by its name, or one of another wheel that was given as it is."""
        known = self.tasks.get(task if isinstance(task, str) else task.name)
        return task if known is None and isinstance(task, BaseTask) else known

    def cron(
        self,
        when: str | Kind,
        *,
        name: str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> Callable[[F], F]:
        """Declare a schedule for a function or a task: a worker of this application syncs it when it starts.

        A plain function becomes a task. name: of the schedule; None: that of the task. May stand several times, with
        a name each. See `new_schedule` for the rest. Raises: ConfigError for a name that is taken.
        """
        if callable(when):
            raise ConfigError(
                "cron takes the rhythm first, also when it stands above a function: @wheel.cron('0 9 * * *')"
            )

        def declare(function: F) -> F:
            task: Any = function if isinstance(function, BaseTask) else self._as_task(function)
            chosen = name or task.name.replace(":", ".").replace("/", ".")
            if chosen in self.declared:
                raise ConfigError(f"two schedules are declared as {chosen!r}: give one of them another name=")
            self.declared[chosen] = make_definition(self.tasks, self.codec, chosen, when, task, args, kwargs, **options)
            self.app = self.app or f"code:{task.function.__module__}"
            return task  # type: ignore[no-any-return]

        return declare

    def _as_task(self, function: Callable[..., Any]) -> BaseTask[Any, Any]:
        raise NotImplementedError

    def __repr__(self) -> str:
        where = mask_url(self._url) if self._url else "url from settings"
        return f"<{type(self).__name__} {where}, {counted(len(self.tasks), 'task')}>"
