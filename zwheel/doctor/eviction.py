"""Whether a server may delete queue keys when its memory is full: the one setting that a worker refuses to work with."""

from __future__ import annotations

from dataclasses import dataclass

from zwheel.broker.store import Steps
from zwheel.doctor import probe
from zwheel.errors import BrokerRefused

CURE = "set `maxmemory-policy noeviction` (CONFIG SET maxmemory-policy noeviction, and in its configuration file)"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the server does when it reaches `maxmemory`."""

    name: str | None
    """Its `maxmemory-policy`; None when it could not be seen."""
    why: str | BrokerRefused = ""
    """Why it could not be seen."""

    @property
    def deletes(self) -> bool:
        """Whether the policy may delete keys of a queue. A policy that cannot be read counts as harmless."""
        return self.name is not None and self.name != "noeviction"

    @property
    def harm(self) -> str:
        """What it would delete."""
        if self.name is not None and self.name.startswith("volatile-"):
            return "deletes keys with a time to live first: with them goes what keeps a repeated request from counting twice"
        return "deletes whole queues with every job in them"


def eviction_policy() -> Steps[Policy]:
    """Look up the policy: by CONFIG, or where that is refused by INFO, which tells the same."""
    found = yield from probe.config("maxmemory-policy")
    if found is not None:
        return Policy(found)
    try:
        memory = yield from probe.info("memory")
    except BrokerRefused as error:
        return Policy(None, error)
    name = memory.get("maxmemory_policy")
    return Policy(name, "" if name else "neither CONFIG nor INFO memory names it")


def refusal(policy: Policy) -> str:
    """Say in one sentence why a worker does not work with this policy, and what to do."""
    return (
        f"this Redis has maxmemory-policy {policy.name}, which {policy.harm} when memory is full: {CURE}, "
        "or accept the loss with --accept-data-loss"
    )
