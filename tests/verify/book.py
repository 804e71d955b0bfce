"""Writes histories by hand, in the form that the recorder gives them, at times in ms after the hour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zwheel.schedules.definition import occurrence_id
from zwheel.times import day_of
from zwheel.verify import Bounds, Report, check, read

HOUR = 1_900_000_800_000
DAY = day_of(HOUR)
LEASE = 1_000
DIGEST, DIGEST2 = "a" * 32, "b" * 32


def us(t: float) -> int:
    """A time after the hour, µs since the epoch."""
    return int((HOUR + t) * 1000)


def token(t: float) -> int:
    """The token of a claim at that time."""
    return us(t)


class Book:
    """One history."""

    def __init__(self, path: Path, *, settles: bool = True) -> None:
        """settles: jobs end by the script `settle`; in former versions each kind of end had a script of its own."""
        self.path = path
        self.settles = settles
        self.seq = 0
        self.lines: list[dict[str, Any]] = []
        #: How far the server's clock was set back, µs: what follows is told by it.
        self.behind_us = 0

    def set_back(self, ms: float) -> None:
        """The server's clock is set back: from now on it shows so much less than the time that a test names."""
        self.behind_us += int(ms * 1000)

    def us(self, t: float) -> int:
        """What the server's clock shows at that time."""
        return us(t) - self.behind_us

    def _line(self, op: str, phase: str, seq: int, proc: str, **fields: Any) -> None:
        told = fields.get("redis_us", fields.get("est_us"))
        mono_ns = 0 if told is None else (told + self.behind_us) * 1000
        self.lines.append(
            {
                "seq": seq,
                "proc": f"h:1:{proc}",
                "op": op,
                "phase": phase,
                **({"queue": "q"} | fields),
                "mono_ns": mono_ns,
                "wall_ns": 0,
            }
        )

    def call(
        self, op: str, t: float, jobs: list[dict[str, Any]], *, phase: str = "ok", proc: str = "w1", word: str = "ok",
        request: str | None = None, asked: float | None = None, args: dict[str, Any] | None = None, queue: str = "q",
        **more: Any,
    ) -> None:  # fmt: skip
        """Add a line pair. phase: "lost" for an invoke that stands alone. asked: when it was sent."""
        self.seq += 1
        shared = {"queue": queue} if request is None else {"queue": queue, "request": request}
        plain = [{k: v for k, v in job.items() if k not in ("letter", "fire")} for job in jobs] if op != "claim" else []
        sent = self.us(t if asked is None else asked)
        self._line(op, "invoke", self.seq, proc, jobs=plain, args=args or {}, est_us=sent, err_us=0, **shared)
        if phase == "ok":
            self._line(
                op, "ok", self.seq, proc, word=word, redis_us=self.us(t), jobs=jobs, args=args or {}, **shared, **more
            )
        elif phase != "lost":
            self._line(op, phase, self.seq, proc, error="x", **shared)

    def enqueue(self, job: str, t: float = 0, *, fire: float | None = None, letter: str = "c", **more: Any) -> None:
        facts: dict[str, Any] = {"id": job, "most": more.pop("most", 3), "letter": letter}
        facts |= {name: more.pop(name) for name in ("digest", "window", "held") if name in more}
        if (replace := more.pop("replace", None)) is not None:
            facts["replace"] = replace
        if letter in "cr":
            facts["fire"] = self.us(t) // 1000 if fire is None else HOUR + int(fire)
        more.setdefault("receipt", "memory")
        self.call("enqueue", t, [facts], proc=more.pop("proc", "p"), **more)

    def claim(self, job: str, t: float, *, fire: float = 0, attempt: int = 1, by: str = "w1", **more: Any) -> None:
        facts = {"id": job, "token": more.pop("token", token(t)), "attempt": attempt, "fire": HOUR + int(fire),
                 "most": more.pop("most", 3)}  # fmt: skip
        self.claims(t, [facts], by=by, **more)

    def claims(
        self, t: float, jobs: list[dict[str, Any]], *, by: str = "w1", limit: int = 10, role: str = "none", **more: Any
    ) -> None:
        args = {"worker": by, "lease": more.pop("lease", LEASE), "limit": limit, "role": role, "grace": 0, "next": None}
        args |= {name: more.pop(name) for name in ("ahead", "waits") if name in more}
        self.call("claim", t, jobs, proc=by, word="ok" if jobs else "empty", args=args, **more)

    def settle(self, op: str, job: str, t: float, *, of: float, by: str = "w1", letter: str = "", **more: Any) -> None:
        """End the claim that was made at `of`."""
        letter = letter or {"complete": "d", "retry": "r", "release": "b", "bury": "x", "cancelled": "c"}[op]
        facts: dict[str, Any] = {"id": job, "token": token(of), "letter": letter}
        if op == "bury":
            facts["reason"] = more.pop("reason", "error")
        if "fire" in more:
            facts["fire"] = HOUR + int(more.pop("fire"))
        if self.settles:
            facts["end"], op = op, "settle"
        self.call(op, t, [facts], proc=by, **more)

    def extend(self, job: str, t: float, *, of: float, by: str = "w1", letter: str = "k", **more: Any) -> None:
        args = {"lease": LEASE}
        self.call("extend", t, [{"id": job, "token": token(of), "letter": letter}], proc=by, args=args, **more)

    def beat(self, t: float, *, by: str = "w1", **more: Any) -> None:
        self.call("extend", t, [], proc=by, args={"lease": LEASE}, **more)

    def reap(
        self, t: float, back: tuple[str, ...] = (), dead: tuple[str, ...] = (), *, by: str = "w2", **more: Any
    ) -> None:
        jobs = [{"id": job, "letter": "s"} for job in back] + [{"id": job, "letter": "x"} for job in dead]
        jobs += [{"id": job, "letter": "c"} for job in more.pop("cancelled", ())]
        args = {"lease": LEASE, "limit": 100, "looked": len(jobs)}
        if "jumped" in more:
            args["jumped"] = more.pop("jumped")
        self.call("reap", t, jobs, proc=by, args=args, **more)

    def hold(self, t: float, *, by: str = "w2") -> None:
        self.seq += 1
        self._line("hold", "ok", self.seq, by, jobs=[], est_us=self.us(t), err_us=0)

    def look(self, t: float, *, by: str = "w1", took: float = 1) -> None:
        """A waiting worker asked at this time how the wheel is."""
        self._window("look", t, t + took, by)

    def stall(self, since: float, until: float, *, by: str = "w1") -> None:
        self._window("stall", since, until, by)

    def _window(self, op: str, since: float, until: float, by: str) -> None:
        self.seq += 1
        args = {"window": [self.us(since), self.us(until)]}
        self._line(op, "ok", self.seq, by, jobs=[], args=args, est_us=self.us(until), err_us=0)

    def schedule(
        self, op: str, t: float, *, on: float | None, cursor: float, fires: tuple[int, ...] = (),
        back: tuple[int, ...] = (), status: str = "a", line: str = "* * * * * *", **more: Any,
    ) -> None:  # fmt: skip
        """Change the schedule `s`. on: when the record that it builds on was written; fires, back: nominal times, ms."""
        state = {"cursor": HOUR + int(cursor)} | {
            k: more.pop(k) for k in ("missed", "skipped", "anchor", "buffered", "taken", "ahead") if k in more
        }
        facts: dict[str, Any] = {
            "name": "s", "stamp": "" if on is None else f"{self.us(on):016d}", "status": status, "due": None,
        }  # fmt: skip
        if status:
            definition = {"name": "s", "queue": "q", "kind": {"cron": line}, "task": "t"} | more.pop("says", {})
            facts |= {"state": state, "definition": definition}
        letters = more.pop("letters", "c" * len(fires))
        jobs = [
            {"id": occurrence(at), "at": HOUR + at, "most": 3, "schedule": "s", "letter": letter, "fire": HOUR + at}
            for at, letter in zip(fires, letters, strict=True)
        ]
        if op == "define":
            facts["back"] = [occurrence(at) for at in back]
            self.call(op, t, jobs, args=facts, **({"proc": "p"} | more))
        else:
            facts |= {"before": more.pop("before", ""), "word": more.pop("word", "a")}
            self.call(op, t, jobs, args={"schedules": [facts]}, **more)

    def start(self, job: str, t: float, *, of: float, fire: float = 0, by: str = "w1", err: int = 100) -> None:
        self._handler("start", job, t, of, fire, by, err)

    def end(self, job: str, t: float, *, of: float, by: str = "w1", outcome: str = "ok") -> None:
        self._handler("end", job, t, of, 0, by, 100, args={"outcome": outcome})

    def _handler(
        self, op: str, job: str, t: float, of: float, fire: float, by: str, err: int, **more: Any
    ) -> None:  # fmt: skip
        self.seq += 1
        facts = [{"id": job, "token": token(of), "attempt": 1, "fire": HOUR + int(fire)}]
        self._line(op, "ok", self.seq, by, jobs=facts, est_us=self.us(t), err_us=err, **more)

    def run(self, job: str, t: float = 10, *, by: str = "w1", **more: Any) -> None:
        """Claim, start and complete a job within a few ms."""
        self.claim(job, t, by=by, **more)
        self.start(job, t + 1, of=t, by=by)
        self.settle("complete", job, t + 2, of=t, by=by)

    def fault(self, kind: str, since: float, until: float, **facts: Any) -> None:
        self.seq += 1
        args = {"kind": kind, "window": [self.us(since), self.us(until)], **facts}
        self._line("fault", "ok", self.seq, "driver", args=args)

    def snapshot(
        self,
        t: float,
        jobs: dict[str, dict[str, Any]] | None = None,
        *,
        days: tuple[str, ...] | None = None,
        **more: Any,
    ) -> None:
        """Add the state: by default the index that fits the jobs. keys: lists of the whole keyspace's odd keys."""
        listed: dict[str, Any] = {"id": "", "attempt": 0, "most": 3, "digest": None, "reason": ""}
        full = [listed | {"id": name} | facts for name, facts in (jobs or {}).items()]
        filled = {name.removeprefix("wheel:") for job in full for name, _ in job["in"] if name.startswith("wheel:")}
        keys, queue = more.pop("keys", {}), more.pop("queue", "q")
        head = {"part": "queue", "snapshot": str(t), "days": sorted(filled) if days is None else days, "wake": 0,
                "dedup": more.pop("dedup", []), "meta": more.pop("meta", {}), "leaving": more.pop("leaving", [])}  # fmt: skip
        self._line("final", "ok", 0, "snapshot", redis_us=self.us(t), args=head, jobs=[], queue=queue)
        part = {"part": "jobs", "snapshot": str(t)}
        self._line("final", "ok", 0, "snapshot", redis_us=self.us(t), args=part, jobs=full, queue=queue)
        whole = {"part": "keys", "unknown": [], "no_ttl": [], "ttl": []} | keys
        self._line("final", "ok", 0, "snapshot", redis_us=self.us(t), args=whole, jobs=[])

    def judge(self, **bounds: Any) -> Report:
        """Write it down and have it checked."""
        self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        return check(read([self.path]), Bounds(**{"reap_ms": 500, "slack_ms": 200, "both_ms": 2_000} | bounds))


def occurrence(at: int) -> str:
    """The id of the occurrence at a nominal time."""
    return occurrence_id("s", HOUR + at)


def on_wheel(fire: float, **facts: Any) -> dict[str, Any]:
    """A scheduled job as a snapshot lists it."""
    return {"state": "s", "fire": HOUR + int(fire), "token": 0, "in": [[f"wheel:{DAY}", HOUR + int(fire)]]} | facts


def processing(of: float, **facts: Any) -> dict[str, Any]:
    return {"state": "p", "fire": HOUR, "token": token(of), "in": [["processing", HOUR + int(of) + LEASE]]} | facts


def dead(t: float, **facts: Any) -> dict[str, Any]:
    return {"state": "x", "fire": HOUR, "token": 0, "in": [["dead", HOUR + int(t)]], "reason": "error"} | facts
