"""Judges a run by what was asked and what the scripts answered, without the model: the promises, one by one.

It sees every execution in the order of the server, also those whose answer got lost. The numbers are those of
lua/README.md. After a restart that lost the last scripts a new judge reads what is left, and keeps the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulator.life import ALL, Life, still_waits
from tests.simulator.promise import Violation, must
from zwheel.calls import Call, Reply, clock_us
from zwheel.calls.call import UNCHANGED, Facts, Trace
from zwheel.calls.settle import ENDS
from zwheel.times import DAY_MS, day_of


class Judge:
    """What must hold after each execution."""

    def __init__(self, mark: Callable[[str], None]) -> None:
        self.lives: dict[str, Life] = {}
        #: The highest token of each id; it outlives the job.
        self.tokens: dict[str, int] = {}
        #: The last stamp that the server keeps, µs; and whether it lost that, so that a deleted id may get an old token.
        self.floor = 0
        self.forgetful = False
        self.highest_given = 0
        self.paused = False
        self.cap: int | None = None
        self.precise = False
        #: Status and stamp of each schedule; the occurrences that were put on the wheel and not taken back.
        self.schedules: dict[str, tuple[str, int]] = {}
        #: Nominal time of the occurrence of each schedule that waits for the one before it, ms.
        self.waiting: dict[str, int] = {}
        self.occurrences: set[str] = set()
        self._mark = mark
        self._lanes: dict[str, tuple[str, Trace]] = {}
        #: Jobs whose producer was not told and asks again: they are made once. Keys of the chunks that are stored.
        self.promised: set[str] = set()
        self._chunks: set[str] = set()
        #: Digest -> the job that holds it and the end of its window, None for until-done.
        self._keys: dict[str, tuple[str, int | None]] = {}

    def command(self, words: tuple[Any, ...]) -> None:
        """A plain command of an operator was carried out."""
        self._chunks.discard(str(words[1]) if words[0] == "SET" else "")
        if words[0] in ("HSET", "HDEL") and str(words[1]).endswith(":meta"):
            if words[2] == "paused":
                self.paused = words[0] == "HSET"
            elif words[2] == "cap":
                self.cap = int(words[3]) if words[0] == "HSET" else None
            elif words[2] == "precise":
                self.precise = words[0] == "HSET"

    def call(self, call: Call, reply: Reply) -> bool:
        """A call was carried out. Returns whether it was a repeat, which changes nothing. Raises: Violation."""
        name = call.script.name
        told = call.trace(reply)
        given, now_us = int(call.args[0]), clock_us(reply)
        self.highest_given = max(self.highest_given, given)
        if given < self.highest_given:
            self.set_back(given)
        lane = call.keys[1] if ":replay:" in call.keys[1] else ""
        known = self._lanes.get(lane)
        if known and known[0] == str(call.args[1]):
            self._repeated(name, known[1], told)
            return True
        must(now_us == given, f"the clock of {name} is {given - now_us} µs behind")
        stamp = max(given, self.floor + 1)
        if told.word not in UNCHANGED - {"doubt"} or (name, told.word) == ("claim", "moved"):
            unmoved = name == "reschedule" and told.jobs[0].get("letter") != "s"
            if not unmoved and (name, told.word) != ("prune", "doubt") and not (name == "enqueue" and len(reply) > 4):
                self.floor = stamp
        if told.word in ("ok", "empty", "paused"):
            if lane and (told.jobs or name != "claim"):
                self._lanes[lane] = str(call.args[1]), told
            _RULES[name](self, call, told, now_us)
        elif told.word == "full":
            must(self.cap is not None, "a queue without a cap is full")
            self._mark("cap full")
        if lane and name != "claim" and told.word in UNCHANGED:
            self._lanes[lane] = str(call.args[1]), told
        return False

    def overtaken(self, call: Call) -> None:
        """A request was refused because a later one of its lane was carried out."""
        known = self._lanes.get(call.keys[1])
        must(known and int(known[0]) > int(call.args[1]), f"{call.script.name} is said to be late, after {known}")
        self._mark("late request refused")

    def _repeated(self, name: str, first: Trace, again: Trace) -> None:
        """N-01, K-02: a repeat gets the first answer. A late copy of what was refused is refused."""
        self._mark(f"replay of {name}")
        if name != "claim":
            must(again.word == first.word, f"a repeated {name} says {again.word}, its caller was told {first.word}")
        part = name == "enqueue" and len(again.jobs) != len(first.jobs)
        if part or first.word in UNCHANGED:
            self._mark("a part of a batch asked for again" if part else f"{name} refused again")
            return
        if name == "claim":
            before = [(job["id"], job["token"]) for job in self._sound(first)]
            got = [(job["id"], job["token"]) for job in self._sound(again)]
            still = [(i, t) for i, t in before if self.lives[i].state == "p" and self.lives[i].token == t]
            must(got == still, f"a repeated claim got {got}, and {still} of {before} are held by it")
        else:
            # The fire time of a delay is reckoned from the clock of the answer, which is another one now.
            told, at_first = (
                [(job["id"], job.get("letter"), job.get("held")) for job in t.jobs] for t in (again, first)
            )
            must(told == at_first, f"a repeated {name} answers {told}, at first {at_first}")

    def _life(self, job_id: str) -> Life | None:
        life = self.lives.get(job_id)
        return None if life is None or life.state == "g" else life

    def _passed(self, end: int | None) -> bool:
        """Whether a window may have ended once, before the server's clock was set back or lost."""
        return end is not None and (self.forgetful or end * 1000 <= self.highest_given)

    def _sound(self, told: Trace) -> list[Facts]:
        """The jobs of a call whose records nobody damaged."""
        return [job for job in told.jobs if not self._damaged(job["id"])]

    def _damaged(self, job_id: str) -> bool:
        return job_id in self.lives and self.lives[job_id].damaged

    def _gone(self, job_id: str) -> None:
        self.lives[job_id].state = "g"
        if self.forgetful:
            self.tokens.pop(job_id, None)

    def forget_the_clock(self) -> None:
        """The server lost the last time it saw. The records still tell the tokens of their jobs."""
        self.floor, self.forgetful = 0, True
        for job_id in [i for i in self.tokens if self._life(i) is None]:
            del self.tokens[job_id]

    def set_back(self, given: int) -> None:
        """The server's clock was set back: an occurrence that is still to come by it, and of which nothing is left, comes again."""
        self.occurrences -= {i for i in self.occurrences if self._life(i) is None and self.lives[i].fire * 1000 > given}

    def _holder(self, digest: str, now_ms: int) -> str | None:
        holder, end = self._keys.get(digest, ("", None))
        life = self._life(holder)
        alive = life is not None and life.alive and life.digest == digest
        if not alive and end is not None and end > now_ms:
            self._mark("dedup window outlives its holder")
            return holder
        return holder if alive else None

    def _enqueue(self, call: Call, told: Trace, now_us: int) -> None:
        now_ms = now_us // 1000
        created = 0
        chunk = call.keys[-1] if ":replay:chunk:" in call.keys[-1] else ""
        if chunk in self._chunks:
            must(all(job["letter"] not in "cr" for job in told.jobs), f"K-03: a chunk was stored twice: {told.jobs}")
            self._mark("chunk of another call")
            return
        # Left open: whether a holder whose record is damaged holds its key, and windows told by a clock that was lost.
        loose = {d for d, (i, end) in self._keys.items() if self._damaged(i) or self._passed(end)}
        for job in told.jobs:
            life, holder = self._life(job["id"]), None
            # Gone or not: a job that ended without `keep` would be made twice.
            anew = job["letter"] != "a" and job["id"] in self.promised and job["id"] in self.lives
            must(not anew, f"K-02: {job['id']} is asked for by another request than the one that stored it")
            if job.get("digest"):
                holder = self._holder(job["digest"], now_ms)
            if job["letter"] == "i":
                must(life and life.state == job["state"], f"I2: {job['id']} is said to exist, but is {life}")
            elif job["letter"] == "k":
                must(
                    holder == job["held"] or job["digest"] in loose or self._damaged(job["held"]),
                    f"I11: refused for {job['held']}, but {holder} holds the key",
                )
                self._mark("dedup refused")
            else:
                must(job["letter"] in "cr", f"{job['id']} is said to be stored by another call with the same chunk")
                if job["letter"] == "c" or life is None:
                    must(life is None and job["letter"] == "c", f"I2: {job['id']} was created twice: {life}")
                else:
                    must(life.damaged or life.gives_way(job.get("replace")), f"I13: {job} took the place of {life}")
                    self._mark(f"gave way out of {life.state}")
                must(
                    holder is None or job["digest"] in loose or (job["letter"], holder) == ("r", job["id"]),
                    f"I11: {job['id']} was created while {holder} holds its key",
                )
                created += 1
                self.lives[job["id"]] = Life("s", job["fire"], job["most"], job.get("keep", 0), job.get("digest", ""))
                if job.get("digest"):
                    window = job.get("window")
                    self._keys[job["digest"]] = job["id"], None if window is None else now_ms + window
        self._chunks |= {chunk} - {""}
        living = sum(life.alive and not life.damaged for life in self.lives.values())
        # A job that is aside and was cancelled, or ended, meanwhile stands in two sets of ended jobs until it is cleared.
        twice = sum(life.damaged for life in self.lives.values())
        must(
            not created or self.cap is None or living <= self.cap + twice,
            f"{living} jobs live, over the cap of {self.cap}",
        )

    def _claim(self, call: Call, told: Trace, now_us: int) -> None:
        must(not self.paused or not told.jobs, "I18: a claim from a paused queue")
        must(len(told.jobs) <= told.args.get("limit", 0), "more jobs than asked for")
        if told.word == "paused":
            must(self.paused, "the queue is said to be paused")
            self._mark("paused")
            return
        now_ms, reach = now_us // 1000, told.args.get("ahead", 0)
        must(reach <= (10 if self.precise else 0), f"I3: a claim of this queue takes jobs {reach} ms ahead")
        due = [job["fire"] for job in told.jobs if (life := self._life(job["id"])) is None or job["fire"] == life.fire]
        must(sorted(due) == due, "not the oldest first")
        for job in self._sound(told):
            life, name = self._life(job["id"]), job["id"]
            if life is None:
                raise Violation(f"I2: {name} started, but there is no such job")
            must(life.state != "c", f"I12: {name} started after it was cancelled")
            must(life.state != "p", f"I4: {name} started while {life.token} holds it")
            must(life.state == "s", f"I13: {name} started out of {life.state}")
            if life.offered is not None and job["fire"] == life.offered != life.fire:
                must(call.keys[9].endswith(f":{ALL}"), f"{name} was taken by one to whom it was not offered")
                self._mark("taken as offered")
                life.fire = life.offered
            must(job["fire"] == life.fire, f"{name} is due at {life.fire}, its record says {job['fire']}")
            must(life.fire <= now_ms + reach, f"I3: {name} was claimed {life.fire - now_ms} ms early")
            if life.fire > now_ms:
                self._mark("claimed ahead")
            must(
                job["token"] > self.tokens.get(name, 0), f"I6: {name} got {job['token']} after {self.tokens.get(name)}"
            )
            must(job["attempt"] == life.attempt + 1, f"I8: {name} is at attempt {job['attempt']} after {life.attempt}")
            must(job["attempt"] <= life.most, f"I8: {name} is at attempt {job['attempt']} of {life.most}")
            life.starts += 1
            must(life.starts <= life.causes, f"I7: {name} started {life.starts} times for {life.causes} causes")
            life.state, life.attempt, life.lease_until = "p", job["attempt"], now_ms + told.args["lease"]
            life.offered = None
            life.token = self.tokens[name] = job["token"]
            if job["token"] != self.floor:
                self._mark("token of its own")

    def _settled(self, job: Facts, good: str) -> Life | None:
        """I5: accepted is the newest token, and it alone. Gives the job when it was."""
        life, name, letter = self._life(job["id"]), job["id"], job["letter"]
        held = life is not None and life.state == "p" and life.token == job["token"]
        if letter in good:
            must(held, f"I5: {name} obeyed the token {job['token']}, but is {life}")
            return life
        must(not held, f"I5: {name} refused the token {job['token']} that holds it")
        must((letter == "m") == (life is None), f"I1: {name} answered {letter}, but is {life}")
        self._mark("fenced" if letter == "f" else "missing")
        return None

    def _settle(self, call: Call, told: Trace, now_us: int) -> None:
        for job in self._sound(told):
            life = self._settled(job, _LETTERS[job["end"]])
            if life is None:
                continue
            if life.cancels(job["letter"]):
                self._cancelled(job["id"], life, now_us)
            elif job["letter"] == "d" and not life.keep:
                self._gone(job["id"])
            elif job["letter"] in "dx":
                life.state, life.ended = job["letter"], now_us // 1000 + (life.keep if job["letter"] == "d" else 0)
            else:
                life.state, life.fire = "s", job["fire"]
                life.causes += 1
                life.attempt -= job["letter"] == "b"
        if any(job["letter"] == "x" for job in told.jobs):
            self._trim(int(call.args[3 + 2 * len(call.about[0])]))

    def _offer(self, call: Call, told: Trace, now_us: int) -> None:
        stands, end = -(-now_us // 1000) + int(call.args[4]), int(call.args[3]) + DAY_MS - 1
        for job in self._sound(told):
            life = self._settled(job, "oc")
            if life and life.cancels(job["letter"]):
                self._cancelled(job["id"], life, now_us)
            elif life:
                life.state, life.offered, life.fire = "s", life.fire, min(stands, end)
                life.causes += 1
                life.attempt -= 1

    def _extend(self, call: Call, told: Trace, now_us: int) -> None:
        for job in self._sound(told):
            life = self._settled(job, "k")
            if life:
                life.lease_until = now_us // 1000 + told.args["lease"]

    def _reap(self, call: Call, told: Trace, now_us: int) -> None:
        lease = told.args["lease"]
        if told.args["shortened"]:
            self._mark("leases shortened")
            for held in self.lives.values():
                if held.state == "p" and held.lease_until > now_us // 1000 + lease + 1000:
                    held.lease_until = now_us // 1000 + lease
        for job in self._sound(told):
            life, name = self._life(job["id"]), job["id"]
            if life is None or life.state != "p":
                raise Violation(f"I4: {name} was reaped, but is {life}")
            must(
                life.lease_until <= now_us // 1000,
                f"I4: {name} was reaped {life.lease_until - now_us // 1000} ms early",
            )
            if life.cancels(job["letter"]):
                self._cancelled(name, life, now_us)
                continue
            last = life.attempt >= life.most
            must(
                (job["letter"] == "x") == last,
                f"I8: {name} was reaped to {job['letter']} at {life.attempt} of {life.most}",
            )
            if last:
                life.state, life.ended = "x", now_us // 1000
                self._mark("reaped to dead")
            else:
                life.state, life.fire = "s", -(-now_us // 1000)
                life.causes += 1
                self._mark("reaped")
        if any(job["letter"] == "x" for job in told.jobs):
            self._trim(int(call.args[3]))

    def _trim(self, most: int) -> None:
        dead = sorted((life.ended, job_id) for job_id, life in self.lives.items() if life.state == "x")
        for _, job_id in dead[: max(0, len(dead) - most)]:
            self._gone(job_id)
            self._mark("dead trimmed")

    def _cancel(self, call: Call, told: Trace, now_us: int) -> None:
        for job in self._sound(told):
            life, letter = self._life(job["id"]), job["letter"]
            right = {None: "m", "s": "cv", "p": "q", "c": "a"}.get(life.state if life else None, "e")
            must(letter in right, f"I12: cancel of {job['id']} says {letter}, but it is {life}")
            if letter == "v" and life:
                must(day_of(life.fire) != told.args["day"], f"cancel of {job['id']} in its own bucket says v")
                self._mark("cancel in another bucket")
            elif letter == "q" and life:
                life.asked = True
            elif letter == "c" and life:
                self._cancelled(job["id"], life, now_us)

    def _cancelled(self, job_id: str, life: Life, now_us: int) -> None:
        self._mark("cancelled while it ran" if life.asked else "cancelled")
        life.cancel(now_us)
        self._free(job_id, life)

    def _free(self, job_id: str, life: Life) -> None:
        """A person took it away: its key is free at once."""
        if self._keys.get(life.digest, ("", None))[0] == job_id:
            del self._keys[life.digest]

    def _reschedule(self, call: Call, told: Trace, now_us: int) -> None:
        if not self._sound(told):
            return
        (job,) = told.jobs
        life, letter = self._life(job["id"]), job["letter"]
        right = {None: "m", "s": "sv", "p": "r"}.get(life.state if life else None, "e")
        must(letter in right, f"reschedule of {job['id']} says {letter}, but it is {life}")
        if letter == "s" and life:
            life.fire, life.offered = job["fire"], None
            self._mark("rescheduled")
        elif letter == "v":
            self._mark("reschedule in another bucket")

    def _redrive(self, call: Call, told: Trace, now_us: int) -> None:
        for job in self._sound(told):
            life, letter, name = self._life(job["id"]), job["letter"], job["id"]
            dead = life is not None and life.state == "x"
            must(dead if letter in "rk" else not dead, f"I13: redrive of {name} says {letter}, but it is {life}")
            if letter == "k":
                self._mark("redrive refused by key")
            elif letter == "r" and life:
                holder, end = self._keys.get(life.digest, ("", None)) if life.digest else ("", None)
                other = self._life(holder)
                must(
                    holder == name or not (other and other.alive and other.digest == life.digest),
                    f"I11: {name} was redriven while {holder} holds its key",
                )
                if life.digest:
                    self._keys[life.digest] = name, end
                life.state, life.fire, life.attempt = "s", -(-now_us // 1000), 0
                life.causes += 1
                self._mark("redriven")

    def _purge(self, call: Call, told: Trace, now_us: int) -> None:
        place = told.args["set"]
        if place.startswith("wheel:"):
            there = {
                i: life.fire
                for i, life in self.lives.items()
                if life.state == "s" and not life.aside and f"wheel:{day_of(life.fire)}" == place
            }
        else:
            states = "x" if place == "dead" else "dc"
            there = {i: life.ended for i, life in self.lives.items() if life.state in states}
        named = list(dict.fromkeys(job["id"] for job in told.jobs))
        order = sorted((score, i) for i, score in there.items() if score <= float(told.args["highest"]))
        ids = [i for i in named if i in there] if named else [i for _, i in order[: told.args["most"]]]
        if not any(life.damaged for life in self.lives.values()):
            must(told.args["count"] == len(ids), f"I1: purge of {place} took {told.args['count']}, there were {ids}")
        for job_id in ids:
            if not self.lives[job_id].damaged:
                self._free(job_id, self.lives[job_id])
            self._gone(job_id)
            self._mark("purged")

    def _prune(self, call: Call, told: Trace, now_us: int) -> None:
        now_ms = now_us // 1000
        for job_id, life in self.lives.items():
            over = life.state in ("d", "c") and life.ended <= now_ms
            old = life.state == "x" and life.ended <= now_ms - told.args["dead_age"]
            if (over or old) and not life.damaged:
                self._gone(job_id)
                self._mark("pruned")

    def _advance(self, call: Call, told: Trace, now_us: int) -> None:
        """I14: whoever built on the last record wins, and nobody else; each nominal time makes one job."""
        (facts,) = told.args["schedules"]
        name, stamp, word = facts["name"], int(facts["stamp"]), facts["word"]
        right = self.schedules.get(name) == ("a", stamp)
        must(right or word == "s", f"I14: {name} was advanced on the record {stamp}, it is {self.schedules.get(name)}")
        if word == "s":
            must(not right, f"I14: {name} was not advanced although its record is the last")
            self._mark("stale advance")
            return
        before = self._life(facts["before"])
        active = before is not None and before.alive
        if facts["before"] and not (before and before.damaged):
            must((word == "b") == active, f"I14: {name} says {word} while the occurrence before is {before}")
            ahead = any(job["at"] * 1000 > now_us for job in told.jobs) or facts["due"] == facts["state"].get("next")
            self._mark(("busy advance" if active else "free advance") + " ahead" * ahead)
        self.schedules[name] = facts["status"], self.floor
        self._placed(told, now_us)
        still_waits(self.waiting, facts, told, self._mark)

    def _define(self, call: Call, told: Trace, now_us: int) -> None:
        """T-13: what has left the wheel stays, what waits is gone with the old definition."""
        facts = told.args
        known = self.schedules.get(facts["name"])
        stamp = int(facts["stamp"]) if facts["stamp"] else None
        must((known[1] if known else None) == stamp, f"I14: {facts['name']} was written on {stamp}, it is {known}")
        late = facts.get("late", {})
        for job_id in facts["back"]:
            life = self._life(job_id)
            if self._damaged(job_id):
                continue
            right = life is not None and (life.state, life.attempt) == ("s", 0)
            if job_id in late:
                right = life is not None and (life.state, life.token) == ("p", late[job_id])
                self._mark("given back late")
            must(right, f"I14: {job_id} was taken back, and it is {life}")
            self._gone(job_id)
            self.occurrences.discard(job_id)
            self._mark("taken back")
        if facts["status"]:
            self.schedules[facts["name"]] = facts["status"], self.floor
        else:
            self.schedules.pop(facts["name"], None)
            self.waiting.pop(facts["name"], None)
            self._mark("schedule deleted")
        self._placed(told, now_us)
        still_waits(self.waiting, facts, told, self._mark)

    def _placed(self, told: Trace, now_us: int) -> None:
        for job in told.jobs:
            name, life = job["id"], self._life(job["id"])
            if job["letter"] == "i":
                must(life is not None or self._damaged(name), f"I2: {name} is said to exist")
                self._mark("occurrence exists")
                continue
            must(life is None, f"I14: {name} was put on the wheel over {life}")
            must(name not in self.occurrences or self.forgetful, f"I14: {name} was put on the wheel twice")
            self._mark("occurrence")
            self.occurrences.add(name)
            self.lives[name] = Life("s", job["fire"], job["most"], job.get("keep", 0), "")


_LETTERS = {end: letter for letter, end in ENDS.items()}
_RULES: dict[str, Callable[[Judge, Call, Trace, int], None]] = {
    "enqueue": Judge._enqueue,
    "claim": Judge._claim,
    "step_down": lambda *_: None,
    "settle": Judge._settle,
    "offer": Judge._offer,
    "extend": Judge._extend,
    "reap": Judge._reap,
    "cancel": Judge._cancel,
    "reschedule": Judge._reschedule,
    "redrive": Judge._redrive,
    "purge": Judge._purge,
    "prune": Judge._prune,
    "advance": Judge._advance,
    "define": Judge._define,
}
