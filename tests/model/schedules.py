"""The rules of schedules beside those of jobs: workers that advance them, people who write and delete them."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.lua.shard import KEYS
from zwheel import calls
from zwheel.calls import Advance, After, NewOccurrence
from zwheel.calls.define import Late
from zwheel.record import record_tail
from zwheel.times import DAY_MS

from .entries import LARGE, SMALL, Told, is_large
from .strategies import ids, lanes, whens
from .waiters import WaitingMachine

SCHEDULES = ("s", "t")


class ScheduleMachine(WaitingMachine):
    """A queue with schedules."""

    @rule(
        name=st.sampled_from(SCHEDULES), stale=st.booleans(), jobs=st.lists(st.tuples(ids, whens), max_size=3),
        before=ids, guarded=st.booleans(), letter=st.sampled_from("aaf"), twice=st.booleans(),
    )  # fmt: skip
    def advance(
        self, name: str, stale: bool, jobs: list[tuple[str, tuple[int | None, int]]], before: str, guarded: bool,
        letter: str, twice: bool,
    ) -> None:  # fmt: skip
        """A worker advances a schedule, now and then on a record that is not the last any more, or two do at once."""
        self.may(adds=True)
        known = self.model.schedules.get(name)
        stamp = (known[1] if known else 1) - (stale and not twice)
        free = self.told(letter, jobs)
        busy = Told(letter="a", due=self.now_ms + 7, tail="\nbusy\n") if guarded else None
        call = calls.advance(
            KEYS,
            [
                Advance(
                    name, f"{stamp:016d}", self.after(free), before if guarded else "",
                    self.after(busy) if busy is not None else None,
                )
            ],
            now=self.now,
        )  # fmt: skip
        for _ in range(1 + twice):
            (word,) = calls.read_advance(call, self.run(call))
            assert word == self.model.advance(self.given, name, stamp, free, before, busy)
            self.placed(free, word[1:])

    @rule(
        name=st.sampled_from(SCHEDULES), stale=st.booleans(), jobs=st.lists(st.tuples(ids, whens), max_size=3),
        back=st.lists(ids, max_size=3, unique=True), letter=st.sampled_from(("a", "a", "p", "")), lane=lanes,
        what=st.sampled_from(("waits", "waits", "any", "moved")), other_day=st.booleans(),
        claims=st.lists(st.tuples(st.integers(0, 4), st.sampled_from((0, 0, 1)), st.sampled_from((-1, -1, 0))), max_size=2),
    )  # fmt: skip
    def define(
        self, name: str, stale: bool, jobs: list[tuple[str, tuple[int | None, int]]], back: list[str], letter: str,
        lane: int, what: str, other_day: bool, claims: list[tuple[int, int, int]],
    ) -> None:  # fmt: skip
        """A person writes a schedule or deletes it, and takes back what waits of it; or a worker what it got too late."""
        self.may(adds=True, deletes=True)
        known = self.model.schedules.get(name)
        stamp = None if known is None else known[1] - stale
        told = self.told(letter, jobs if letter else [])
        # Occurrences carry no dedup keys.
        jobs_now = self.model.jobs
        back = [i for i in back if not (i in jobs_now and jobs_now[i].digest)]
        if what != "any":
            back = [i for i in back if i in jobs_now and (jobs_now[i].state, jobs_now[i].attempt) == ("s", 0)]
        fires = {i: jobs_now[i].fire if i in jobs_now else self.now_ms for i in back}
        if what == "moved" and fires:  # the caller knows one's time from before somebody moved it, to another day too
            fires[back[0]] += DAY_MS if other_day else 1
        held = [i for i in jobs_now if jobs_now[i].state == "p" and not jobs_now[i].digest and i not in fires]
        chosen = [(held[number % len(held)], older, by) for number, older, by in claims] if held else []
        late = {i: (jobs_now[i].token - older, self.now_ms + by) for i, older, by in chosen}
        call = calls.define(
            KEYS, name, stamp="" if stamp is None else f"{stamp:016d}", after=self.after(told),
            back=list(fires.items()), late=[Late(i, f"{token:016d}", by) for i, (token, by) in late.items()],
            lane=self.lane(lane), now=self.now,
        )  # fmt: skip
        met = calls.read_define(call, self.run(call, lane))
        letters, started = self.model.define(self.given, name, stamp, told, fires, late)
        assert (met.letters if met.word == "ok" else met.word, list(met.started)) == (letters, started)
        if met.word == "ok":
            self.placed(told, letters)

    def told(self, letter: str, jobs: list[tuple[str, tuple[int | None, int]]]) -> Told:
        fires = {i: self.now_ms + (delay if offset is None else offset) for i, (offset, delay) in jobs}
        due = self.now_ms + 5 if letter == "a" else None
        return Told(letter=letter, due=due, tail=f"\n{self.requests}\n", jobs=tuple(fires.items()))

    def after(self, told: Told) -> After:
        tail = record_tail("mail.send", max_attempts=3, keep_ms=60_000)
        jobs = [NewOccurrence(i, fire, tail + (LARGE if is_large(i, fire) else SMALL)) for i, fire in told.jobs]
        return After(told.letter, told.due, told.tail, jobs)

    def placed(self, told: Told, letters: str) -> None:
        for (job_id, fire), letter in zip(told.jobs, letters, strict=False):
            if letter == "c":
                self.history.enqueued(job_id)
                self.someone_wakes(fire)
