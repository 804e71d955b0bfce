"""What Redis holds by the model."""

from __future__ import annotations

from tests.lua.shard import Keyspace
from zwheel.times import day_of

from .entries import LARGE
from .model import Model


def keyspace_of(model: Model) -> Keyspace:
    """What Redis holds, but for replays, roles and wake-up tokens."""
    marks = {
        "clock": model.clock or None, "beat": model.beat, "grace": model.grace, "lease": model.lease or None,
        "leased": model.leased, "jumps": model.jumps or None, "jump": model.jump,
        "server": "f00d" if model.restarted else None, "cap": model.cap, "precise": int(model.precise) or None, "trimmed": model.trimmed or None, "schema": 1 if model.epoch else None, "epoch": model.epoch,
    }  # fmt: skip
    found: Keyspace = {
        "jobs": {job_id: job.stored() for job_id, job in model.jobs.items()},
        "bodies": {job_id: LARGE for job_id, job in model.jobs.items() if job.has_body_apart},
        "processing": model.leases,
        "dead": model.died,
        "done": model.kept_until,
        "dedup": model.dedup,
        "dedup:expiry": model.windows,
        "schedules": {name: f"1{letter}{stamp:016d}{tail}" for name, (letter, stamp, tail) in model.schedules.items()},
        "schedules:due": model.looks,
        "asked": model.asks,
        "days": {day_of(fire): int(day_of(fire)) for fire, _ in model.scheduled()},
        "meta": {name: str(value) for name, value in marks.items() if value is not None},
    }
    for fire, job_id in model.scheduled():
        found.setdefault(f"wheel:{day_of(fire)}", {})[job_id] = fire
    return {name: value for name, value in found.items() if value}


def jobs_of(keyspace: Keyspace) -> Keyspace:
    """What Redis holds of that."""
    meta = {
        name: value for name, value in keyspace.get("meta", {}).items() if not name.startswith(("keeper", "second"))
    }
    rest = {
        n: v
        for n, v in keyspace.items()
        if n not in ("wake", "meta") and not n.startswith(("replay:", "call:", "offered:"))
    }
    return rest | ({"meta": meta} if meta else {})
