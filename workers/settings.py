"""What one worker process is told."""

from __future__ import annotations

from dataclasses import dataclass

from zwheel.broker.address import parse_url
from zwheel.errors import ConfigError
from zwheel.job import DEFAULT_QUEUE
from zwheel.keys import check_name


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What one worker process is told. Durations in ms."""

    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    concurrency: int = 100
    """How many jobs run at a time."""
    task_processes: int = 0
    """How many processes run `process=True` tasks at a time; 0: as many as there are CPUs."""
    prefetch: int = 200
    """The most jobs held beyond the running jobs. It is used only as far as jobs end within one round trip."""
    lease_ms: int = 30_000
    """How long a claim stays valid without a heartbeat."""
    longest_ms: int = 86_400_000
    """How long one claim may be kept alive by heartbeats."""
    reap_ms: int = 5_000
    """How often a worker looks for leases that ran out."""
    drain_ms: int = 30_000
    """How long running jobs may take to end after a stop was asked for."""
    unknown_ttl_ms: int = 600_000
    """How long a job whose task no living worker knows goes round before it is dead."""
    most_dead: int = 10_000
    """How many dead jobs a queue keeps; the oldest go first, and are counted."""
    dead_age_ms: int = 90 * 86_400_000
    """How long a dead job is kept."""
    accept_data_loss: bool = False
    """Work also on a Redis whose eviction policy may delete queue keys."""
    watch_ms: int = 60_000
    """How often a running worker looks at the eviction policy."""
    stuck_ms: int = 60_000
    """How long a task may block the event loop, or hold the GIL, before its worker is replaced; at least three leases.
    Three leases are enough when the task is past its own timeout."""

    log_done: bool = False
    """Log each job that ended well at level info; else at debug."""

    burst: bool = False
    """End as soon as nothing is due any more."""
    max_jobs: int = 0
    """Take no more jobs than so many, and end when they have ended; 0: go on."""

    def __post_init__(self) -> None:
        if not self.queues:
            raise ConfigError("a worker needs at least one queue")
        for queue in self.queues:
            check_name(queue)
        for name, least in (
            ("concurrency", 1), ("task_processes", 0), ("prefetch", 0), ("lease_ms", 500), ("longest_ms", 1_000), ("reap_ms", 50),
            ("drain_ms", 0), ("unknown_ttl_ms", 0), ("most_dead", 0), ("dead_age_ms", 0),
            ("watch_ms", 50), ("stuck_ms", 0), ("max_jobs", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name.removesuffix('_ms')}: must be at least {least}{' ms' if '_ms' in name else ''}"
                )

    @property
    def beat_ms(self) -> int:
        """How often the heartbeat renews leases: a third of one."""
        return self.lease_ms // 3


def refuse_memory(url: str | None) -> None:
    """Raise ConfigError for a URL with which no worker can work: what is stored there is in one process only."""
    if url is not None and parse_url(url).scheme == "memory":
        raise ConfigError(
            "a worker needs a Redis; memory:// is for tests of code that only stores jobs. Use redis://, rediss:// or unix://"
        )
