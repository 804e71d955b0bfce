"""The peers: what each installs, which Python it needs, and which part of the jobs it is given."""

from __future__ import annotations

from dataclasses import dataclass

#: What can be measured, in the order it is.
WHAT = ("one", "bulk", "drain", "lateness")
HIREDIS = "hiredis==3.5.0"
UVLOOP = "uvloop==0.23.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One project that is measured. Its adapter, which says how it is set, is adapters/NAME."""

    name: str
    requirements: tuple[str, ...] = ()
    """Packages with their versions, the first is the peer itself; empty for zwheel, which is measured as it is here."""
    python: tuple[int, int] = (3, 11)
    """The oldest Python that it runs on."""
    node: bool = False
    """Its packages are Node's."""
    blocking: bool = False
    """Its client blocks, so that it enqueues beside zwheel's blocking client."""
    bulk: bool = False
    """It has a call that enqueues many jobs."""
    share: float = 1.0
    """The part of the jobs it is given, so that a run takes seconds and not minutes; its rate does not depend on it."""

    @property
    def version(self) -> str:
        """The pinned version of the peer itself."""
        return self.requirements[0].replace("==", "@").rpartition("@")[2]


OURS = Peer(name="zwheel", bulk=True)
OURS_BLOCKING = Peer(name="zwheel_sync", bulk=True)

PEERS = (
    Peer(name="celery", blocking=True, requirements=("celery[redis]==5.7.0", HIREDIS), share=0.1),
    Peer(name="rq", blocking=True, requirements=("rq==3.0.0", "redis==8.1.0", HIREDIS), bulk=True, share=0.1),
    Peer(name="arq", requirements=("arq==0.28.0", HIREDIS), share=0.1),
    Peer(name="dramatiq", blocking=True, requirements=("dramatiq[redis]==2.2.1", HIREDIS), share=0.25),
    Peer(name="huey", blocking=True, requirements=("huey==3.5.4", "redis==8.1.0", HIREDIS), share=0.25),
    Peer(name="saq", requirements=("saq[redis]==0.26.4", HIREDIS, "typing-extensions==4.16.0"), share=0.1),
    Peer(name="taskiq", requirements=("taskiq==0.13.0", "taskiq-redis==1.2.4", HIREDIS, UVLOOP), share=0.25),
    Peer(name="streaq", requirements=("streaq==7.2.0", UVLOOP), bulk=True, share=0.25),
    Peer(name="docket", requirements=("pydocket==0.27.0", HIREDIS), bulk=True, share=0.1),
    Peer(name="ardiq", requirements=("ardiq==1.2.0",), python=(3, 12), bulk=True, share=0.5),
    Peer(name="bullmq", requirements=("bullmq@6.7.0", "ioredis@5.11.1"), node=True, bulk=True),
)
