"""The model behind the same door as a server: takes calls, answers as the scripts must answer, holds what Redis must hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tests.lua.shard import Keyspace
from tests.model.entries import Told, Wanted, reach
from tests.model.model import Model
from tests.model.stored import keyspace_of
from tests.simulator.life import ALL
from tests.simulator.wire import LATE, Command
from zwheel.calls import Call, Reply
from zwheel.calls.call import Facts
from zwheel.calls.scripts import Script
from zwheel.outside import as_text
from zwheel.times import DAY_MS, day_of

#: The task and the body that the model writes into each record.
MODEL_REST = b"mail.send\n\x01\x00\xff\n"
#: The parts of `meta` that the model knows.
MARKS = (
    "clock", "beat", "grace", "lease", "leased", "jumps", "jump", "paused", "cap", "precise", "trimmed", "schema", "epoch",
)  # fmt: skip
TASK, RARE = b"mail.send\n", b"pay.out\n"
_ANYTHING = object()
#: What a trace says of who gives way -> the same as a `Wanted` says it.
_REPLACE = {None: False, True: True, False: None}


class Mirror:
    """One shard in the model, with the answers that lanes remember. Bodies are kept beside it: the model has its own."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.reset()

    def reset(self) -> None:
        self._waiting: dict[str, bytes] = {}
        self.model = Model(large=lambda job_id, fire: _is_large(self._waiting.get(job_id, TASK)))
        #: What pause and resume wrote, and they are no scripts.
        self.paused: str | None = None
        self._lanes: dict[str, tuple[str, list[Any]]] = {}
        #: Of each job its task and what follows.
        self._bodies: dict[str, bytes] = {}
        #: Key of a chunk's content -> its first answer.
        self._chunks: dict[str, list[Any]] = {}

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Take the server's place. Whoever asks when to wait is a follower."""
        replies = [self.call(c) if isinstance(c, Call) else self.command(c) for c in commands]
        return [["follower" if e is _ANYTHING else e for e in r] if isinstance(r, list) else r for r in replies]

    def load(self, scripts: Sequence[Script]) -> None:
        """It has no scripts to know."""

    def forget_scripts(self) -> None:
        """It has none to forget."""

    def call(self, call: Call) -> Any:
        """The answer to a call; `_ANYTHING` stands where the model does not know."""
        given = int(call.args[0])
        known = ":replay:" in call.keys[1] and self._lanes.get(call.keys[1])
        request = str(call.args[1])
        if known and known[0] == request:
            return self._again(call, given, known[1])
        if known and int(known[0]) > int(request):
            return LATE
        chunk = call.keys[-1] if ":replay:chunk:" in call.keys[-1] else None
        if chunk in self._chunks:
            letters = str(self._chunks[chunk][2]).replace("c", "a").replace("r", "a")
            first = self._chunks[chunk]
            self._lanes[call.keys[1]] = request, ["ok", first[1], letters, *first[3:]]
            return ["ok", given, letters, *first[3:], first[1]]
        answer = _ANSWERS[call.script.name](self, call, given)
        if chunk is not None and answer[0] == "ok":
            self._chunks[chunk] = list(answer)
        if ":replay:" in call.keys[1] and _remembered(call, answer):
            self._lanes[call.keys[1]] = request, list(answer)
        return answer

    def _again(self, call: Call, given: int, saved: list[Any]) -> Reply:
        name = call.script.name
        if name in ("enqueue", "settle") and saved[0] == "ok":
            return [saved[0], given, *saved[2:], saved[1]]
        if name != "claim":
            return [saved[0], given, *saved[2:]]
        ahead = str(reach(int(call.args[8]), precise=self.model.precise))
        answer: list[Any] = ["ok", given, "", "", "none", "0", "", ahead]
        least = min((int(raw[21:37]) for raw in saved[9::2]), default=0)
        for raw_id in saved[8::2]:
            job = self.model.jobs.get(raw_id.decode())
            if job and job.state == "p" and job.token >= least and job.worker == call.args[2]:
                answer += [raw_id, self._given(raw_id.decode())]
        return answer

    def _record(self, job_id: str) -> bytes:
        job = self.model.jobs[job_id]
        stored = job.stored()
        rest = self._bodies[job_id]
        if job.state in "dc" or job.large:
            return stored.removesuffix(TASK) + rest[: rest.index(b"\n") + 1]
        return stored.removesuffix(MODEL_REST) + rest

    def _given(self, job_id: str) -> bytes:
        """A record as a claim gives it: with its body."""
        return self._record(job_id) + (_body(self._bodies[job_id]) if self.model.jobs[job_id].large else b"")

    def _enqueue(self, call: Call, given: int) -> Reply:
        wants, bodies, at = [], [], 4 + 2 * int(call.args[3])
        for job in call.trace(None).jobs:
            want = Wanted(
                id=job["id"], at=job.get("at"), delay=job.get("delay", 0), digest=job.get("digest", ""),
                window=job.get("window"), keep=job.get("keep", 0), most=job["most"], replace=_REPLACE[job.get("replace")],
            )  # fmt: skip
            tail: Any = call.args[at + 3]
            bodies.append(tail[tail.index(RARE if tail.endswith(RARE, 0, tail.index(b"\n") + 1) else TASK) :])
            wants.append(replace(want, large=_is_large(bodies[-1])))
            at += 4
        next_ms = -(-given // 1000)
        if _moved(call, 3, [next_ms + want.delay if want.at is None else want.at for want in wants]):
            return ["moved", given]
        answers = self.model.enqueue(given, wants)
        if answers is None:
            return ["full", given, str(self.model.cap)]
        existed = " ".join(f"{i + 1} {a.id} {a.state} {a.fire:015d}" for i, a in enumerate(answers) if a.letter in "ik")
        for i, answer in enumerate(answers):
            if answer.letter in "cr":
                self._bodies[wants[i].id] = bodies[i]
        return ["ok", given, "".join(a.letter for a in answers), existed]

    def _claim(self, call: Call, given: int) -> Reply:
        model, worker, lease, limit, day = (
            self.model,
            str(call.args[2]),
            int(call.args[3]),
            int(call.args[4]),
            call.args[5],
        )
        founded = str(model.epoch or "")
        if call.args[7] and call.args[7] != founded:
            return ["flushed", given, founded]
        if self.paused is not None:
            model.contact(given, lease)
            return ["paused", model.time]
        first = model.first_day()
        if first and first != day:
            model.contact(given, lease)
            return ["moved", model.time, first]
        knows, ahead = call.keys[9].endswith(f":{ALL}"), reach(int(call.args[8]), precise=model.precise)
        ids = model.claim(given, worker=worker, lease=lease, limit=limit, knows=knows, reach=ahead)
        wheel = model.scheduled()
        next_day = day_of(wheel[0][0]) if wheel else ""
        next_fire = str(wheel[0][0]) if wheel and next_day == first else ""
        grace = model.grace if model.grace is not None and 0 < model.grace - given // 1000 <= model.lease else 0
        answer: list[Any] = [
            "ok" if ids else "empty", given, next_fire, next_day, _ANYTHING, str(grace), str(model.jumps),
            str(ahead),
        ]  # fmt: skip
        for job_id in ids:
            answer += [job_id.encode(), self._given(job_id)]
        return answer

    def _step_down(self, call: Call, given: int) -> Reply:
        self.model.contact(given)
        return ["ok", self.model.time]

    def _letters(self, letters: str) -> Reply:
        return ["ok", self.model.time, letters]

    def _settle(self, call: Call, given: int) -> Reply:
        done, others = call.about
        next_ms = -(-given // 1000)
        fires = [next_ms + one.delay_ms if one.at_ms is None else one.at_ms for one in others if one.letter not in "xc"]
        at = 4 + 2 * len(done)
        if others and _moved(call, at, fires):
            return ["moved", given]
        pairs = [(as_text(job_id), int(token)) for job_id, token in done]
        most_dead = int(call.args[at - 1]) if others else 0
        return self._letters(self.model.settle(given, pairs, others, most_dead=most_dead))

    def _change(self, job_id: str, **fields: Any) -> None:
        self.model.jobs[job_id] = replace(self.model.jobs[job_id], **fields)

    def _offer(self, call: Call, given: int) -> Reply:
        start = int(call.args[3])
        if not start <= given // 1000 < start + DAY_MS:
            return ["moved", given]
        stands = int(call.args[4])
        jobs = call.trace(None).jobs
        letters = self.model.offer(given, _claims(jobs), stands=stands)
        for i, letter in enumerate(letters):
            failures: Any = call.args[7 + 3 * i]
            if letter == "o" and failures:
                self._change(jobs[i]["id"], failures=b"" if failures == b"none" else failures)
        return [*self._letters(letters), str(min(-(-given // 1000) + stands, start + DAY_MS - 1))]

    def _extend(self, call: Call, given: int) -> Reply:
        pairs = _claims(call.trace(None).jobs)
        return self._letters(self.model.extend(given, pairs, lease=int(call.args[1])))

    def _reap(self, call: Call, given: int) -> Reply:
        if _moved(call, 8, [-(-given // 1000)]):
            return ["moved", given]
        expected, jumped, jumps = call.args[5:8]
        told = self.model.reap(
            given, lease=int(call.args[2]), limit=int(call.args[1]), most_dead=int(call.args[3]),
            expected=None if expected == "" else int(expected), jumped=int(jumped or 0),
            jumps=None if jumps == "" else int(jumps),
        )  # fmt: skip
        if told.grace:
            return ["grace", given, told.jumps, str(told.grace)]
        if told.doubted:
            return ["doubt", given, told.jumps]
        looked, ids = (
            len(told.back) + len(told.dead) + len(told.cancelled),
            map(" ".join, (told.back, told.dead, told.cancelled)),
        )
        back, dead, cancelled = ids
        return ["ok", given, told.jumps, looked, back, dead, told.shortened, cancelled]

    def _cancel(self, call: Call, given: int) -> Reply:
        ids = [job["id"] for job in call.trace(None).jobs]
        return self._letters(self.model.cancel(given, ids, day=str(call.args[2])))

    def _reschedule(self, call: Call, given: int) -> Reply:
        (job,) = call.trace(None).jobs
        if _moved(call, 6, [job["at"] if "at" in job else -(-given // 1000) + job["delay"]]):
            return ["moved", given]
        letter = self.model.reschedule(
            given, job["id"], day=str(call.args[3]), at=job.get("at"), delay=job.get("delay", 0)
        )
        return ["ok", given, letter, str(self.model.jobs[job["id"]].fire) if letter == "s" else ""]

    def _redrive(self, call: Call, given: int) -> Reply:
        if _moved(call, 2, [-(-given // 1000)]):
            return ["moved", given]
        return self._letters(self.model.redrive(given, [job["id"] for job in call.trace(None).jobs]))

    def _purge(self, call: Call, given: int) -> Reply:
        place = call.keys[6].removeprefix(self._prefix)
        model = self.model
        if place.startswith("wheel:"):
            scores = {
                i: job.fire
                for i, job in model.jobs.items()
                if job.state == "s" and f"wheel:{day_of(job.fire)}" == place
            }
        else:
            scores = model.died if place == "dead" else model.kept_until
        named = list(dict.fromkeys(job["id"] for job in call.trace(None).jobs))
        highest = float(call.args[3])
        order = sorted((score, i) for i, score in scores.items() if score <= highest)
        ids = [i for i in named if i in scores] if named else [i for _, i in order[: int(call.args[2])]]
        model.purge(given, ids)
        return ["ok", model.time, len(ids), 0]

    def _prune(self, call: Call, given: int) -> Reply:
        if call.args[3] != "" and abs(given - int(call.args[3])) > 60_000_000:
            return ["doubt", given]
        taken = self.model.prune(given, dead_age=int(call.args[2]))
        return ["ok", self.model.time, taken]

    def _occurrences(self, args: Sequence[Any], at: int) -> tuple[tuple[tuple[str, int], ...], int]:
        """Jobs from their number on, their bodies noted, and where what follows them begins."""
        count, jobs = int(args[at]), []
        for i in range(at + 1, at + 1 + 4 * count, 4):
            rest: bytes = args[i + 3]
            jobs.append((str(args[i]), int(args[i + 1])))
            if str(args[i]) not in self.model.jobs:
                self._waiting[str(args[i])] = rest[rest.index(TASK) :]
        return tuple(jobs), at + 1 + 4 * count

    def _told(self, args: Sequence[Any], at: int) -> tuple[Told, int]:
        jobs, after = self._occurrences(args, at + 3)
        due = None if args[at + 1] == "" else int(args[at + 1])
        return Told(letter=args[at], due=due, tail=args[at + 2], jobs=jobs), after

    def _advance(self, call: Call, given: int) -> Reply:
        args: Sequence[Any] = call.args
        at = 2 + int(args[1])
        name, stamp, before = str(args[at]), int(args[at + 1]), str(args[at + 2])
        self._waiting = {}
        free, after = self._told(args, at + 3)
        busy = self._told(args, after)[0] if before else None
        word = self.model.advance(given, name, stamp, free, before, busy)
        self._keep_bodies(free if word[0] == "a" else busy, word[1:])
        return ["ok", self.model.time, word]

    def _define(self, call: Call, given: int) -> Reply:
        args: Sequence[Any] = call.args
        at = 8 + int(args[7])
        count = int(args[at])
        given_back = range(at + 1, at + 1 + 4 * count, 4)
        back = {str(args[i]): int(args[i + 1]) for i in given_back if args[i + 3] == ""}
        late = {str(args[i]): (int(args[i + 1]), int(args[i + 3])) for i in given_back if args[i + 3] != ""}
        self._waiting = {}
        jobs, _ = self._occurrences(args, at + 1 + 4 * count)
        for job_id in back:
            # What is taken back may be put there anew by the same call.
            for i in range(at + 1 + 4 * count, len(args)):
                if args[i] == job_id and isinstance(args[i + 3], bytes):
                    self._waiting[job_id] = args[i + 3][args[i + 3].index(TASK) :]
        due = None if args[5] == "" else int(args[5])
        told = Told(letter=str(args[4]), due=due, tail=str(args[6]), jobs=jobs)
        stamp = None if args[3] == "" else int(args[3])
        letters, started = self.model.define(given, str(args[2]), stamp, told, back, late)
        if letters in ("stale", "started", "early"):
            return [letters, given, *([" ".join(started)] if started else [])]
        self._keep_bodies(told, letters)
        return ["ok", self.model.time, letters]

    def _keep_bodies(self, told: Told | None, letters: str) -> None:
        for (job_id, _), letter in zip(told.jobs if told is not None else (), letters, strict=True):
            if letter == "c":
                self._bodies[job_id] = self._waiting[job_id]

    def command(self, words: tuple[Any, ...]) -> Any:
        """The answer to a plain command of the operations that the simulator uses."""
        model, name, key = self.model, words[0], str(words[1]).removeprefix(self._prefix) if len(words) > 1 else ""
        if name in ("HSET", "HDEL") and key == "meta":
            value = str(words[3]) if name == "HSET" else None
            if words[2] == "paused":
                self.paused = value
            elif words[2] == "precise":
                model.precise = value is not None
            else:
                model.cap = None if value is None else int(value)
            return 1
        if name == "SET":
            self._chunks.pop(str(words[1]), None)
            return b"OK"
        if name == "HGET" and key == "schedules":
            found = keyspace_of(model).get("schedules", {}).get(words[2])
            return None if found is None else found.encode()
        if name == "HEXISTS":
            return 0
        if words[1:2] == ("zw:queues",):
            return {"HGETALL": [b"q", b"1"], "HMGET": [b"1"]}.get(name, 1)
        if name == "ZSCORE" and key == "schedules:due":
            look = model.looks.get(words[2])
            return None if look is None else str(look).encode()
        if name == "HGET" and key == "jobs":
            return self._record(words[2]) if words[2] in model.jobs else None
        if name == "HMGET" and key == "meta":
            return [b"1", str(model.epoch).encode(), None] if model.epoch else [None, None, None]
        if name == "EXISTS" and key == "jobs":
            return int(bool(model.jobs))
        if name == "HMGET" and key == "jobs":
            return [self._record(job_id) if job_id in model.jobs else None for job_id in words[2:]]
        places = {"processing": model.leases, "dead": model.died, "done": model.kept_until}
        if name == "ZMSCORE" and key in places:
            scores = [places[key].get(as_text(member)) for member in words[2:]]
            return [None if score is None else str(score).encode() for score in scores]
        if name == "ZSCORE" and key in places:
            score = places[key].get(words[2])
            return None if score is None else str(score).encode()
        if name == "ZRANGE" and key == "days":
            return [day.encode() for day in sorted({day_of(fire) for fire, _ in model.scheduled()})]
        if name == "ZRANGE" and key == "dead":
            order = sorted((died, job_id) for job_id, died in model.died.items())
            if "WITHSCORES" in words:
                return [part for died, job_id in order[-1:] for part in (job_id.encode(), str(died).encode())]
            highest, skip, most = int(words[3]), int(words[6]), int(words[7])
            return [job_id.encode() for died, job_id in order if died <= highest][skip : skip + most]
        return None if name == "LPOP" else 1

    def keyspace(self, prefix: str, likely: Sequence[str] = ()) -> Keyspace:
        found = keyspace_of(self.model)
        if self.model.offers:
            found[f"offered:{ALL}"] = {note: told[2] for note, told in self.model.offers.items()}
        if self.paused is not None:
            found.setdefault("meta", {})["paused"] = self.paused
        if "jobs" in found:
            found["jobs"] = {job_id: self._record(job_id) for job_id in found["jobs"]}
        if "bodies" in found:
            found["bodies"] = {job_id: _body(self._bodies[job_id]) for job_id in found["bodies"]}
        return found

    def differs(self, held: Keyspace) -> str | None:
        """Say where what a server holds differs from what it must hold."""
        meta = {name: held.get("meta", {})[name] for name in MARKS if name in held.get("meta", {})}
        seen = {
            name: value
            for name, value in held.items()
            if name not in ("wake", "workers", "meta", "?", f"call:{ALL}") and value
        }
        if meta:
            seen["meta"] = meta
        wanted = self.keyspace("")
        for name in sorted(seen.keys() | wanted.keys()):
            if seen.get(name) != wanted.get(name):
                return f"{name} holds {seen.get(name)}, the model {wanted.get(name)}"
        return None


def same(reply: Any, expected: Any) -> bool:
    """Whether a script answered what the model answers."""
    if reply is LATE or expected is LATE:
        return reply is expected
    if len(reply) != len(expected):
        return False
    return all(b is _ANYTHING or _plain(a) == _plain(b) for a, b in zip(reply, expected, strict=True))


def _plain(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _body(rest: bytes) -> bytes:
    """The body behind a task's name."""
    return rest[rest.index(b"\n") + 1 :]


def _is_large(rest: bytes) -> bool:
    """Whether the body lies apart."""
    return len(_body(rest)) > 1024


def _claims(jobs: Sequence[Facts]) -> list[tuple[str, int]]:
    return [(job["id"], job["token"]) for job in jobs]


def _moved(call: Call, at: int, fires: Sequence[int]) -> bool:
    """Whether a fire time belongs to no bucket that the call names. at: where their number stands among the arguments."""
    starts = {int(call.args[at + 2 + 2 * b]) for b in range(int(call.args[at]))}
    return any(fire - fire % DAY_MS not in starts for fire in fires)


def _remembered(call: Call, answer: Reply) -> bool:
    if call.script.name == "claim":
        return bool(answer[0] == "ok" and len(answer) > 8)
    return True


_ANSWERS: dict[str, Callable[[Mirror, Call, int], Reply]] = {
    "enqueue": Mirror._enqueue,
    "claim": Mirror._claim,
    "step_down": Mirror._step_down,
    "settle": Mirror._settle,
    "offer": Mirror._offer,
    "extend": Mirror._extend,
    "reap": Mirror._reap,
    "cancel": Mirror._cancel,
    "reschedule": Mirror._reschedule,
    "redrive": Mirror._redrive,
    "purge": Mirror._purge,
    "prune": Mirror._prune,
    "advance": Mirror._advance,
    "define": Mirror._define,
}
