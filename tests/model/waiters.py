"""The rules of waiting beside those of jobs: workers that step down, die, or have a role for longer than any can."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.lua.shard import KEYS, digits16
from zwheel import calls
from zwheel.calls import Offer

from .machine import GROUP, QueueMachine
from .strategies import LEASE, WORKERS, ids, lanes, picks, workers
from .waiting import LONGEST, Waiting


class WaitingMachine(QueueMachine):
    """A queue with workers that wait."""

    @rule(name=st.sampled_from(("keeper", "second")), worker=workers, ahead=st.sampled_from((1, 5_000, 10**9)))
    def a_role_ends_too_late(self, name: str, worker: str, ahead: int) -> None:
        """The clock was set back, or a value is damaged: a role ends later than any that begins now."""
        self.may()
        fields = {name: worker, f"{name}_end": str(self.given // 1000 + LONGEST + ahead)}
        if name == "keeper":
            fields["keeper_at"] = "0"
        self.shard.put({"meta": fields})

    @rule(chosen=picks, lane=lanes, stands=st.sampled_from((60_000, 60_000, 400, 0)))
    def offer(self, chosen: list[tuple[str, int]], lane: int, stands: int) -> None:
        """A worker does not know the tasks of what it claimed."""
        self.may()
        claims = self.pick(chosen)
        if not claims:
            return
        batch = [Offer(held.id, digits16(held.token), b"") for held in claims]
        now_ms = self.given // 1000
        call = calls.offer(
            KEYS, batch, groups=[GROUP], now_ms=now_ms, lane=self.lane(lane), stands_ms=stands, now=self.now
        )
        letters = calls.read_letters(self.run(call, lane))
        pairs = [(held.id, held.token) for held in claims]
        assert letters == self.model.offer(self.given, pairs, stands=stands)
        assert letters is not None
        if "o" in letters:
            assert self.shard.client.llen(KEYS.call(GROUP)), "nobody is called for what is offered"
        for held, letter in zip(claims, letters, strict=True):
            if letter == "o":
                self.history.accepted(held.id, held.token, back=True)
                self.someone_wakes(self.model.jobs[held.id].fire)
        self.forget(claims)

    @rule(worker=workers, limit=st.integers(1, 4))
    def take_what_is_offered(self, worker: str, limit: int) -> None:
        """A worker that knows the tasks was called."""
        self.shard.client.lpop(KEYS.call(GROUP))
        self.claim(worker, limit, 0, False, True)

    @rule(name=ids, lane=lanes, gap=st.sampled_from((1_000, 0)))
    def the_second_fills_itself(self, name: str, lane: int, gap: int) -> None:
        """One keeps time, one stands in for it, and a job that is due takes the second one's only place."""
        for worker in WORKERS[:2]:
            self.claim(worker, 9, lane, False)
        self.enqueue([(name, None, 0, "", None, 0, 3, False, False)], lane)
        self.live_until(self.given + gap)
        self.claim(WORKERS[1], 1, lane, True)

    @precondition(lambda self: self.model.offers)
    @rule(worker=workers, delay=st.sampled_from((90_000, 1, 0)))
    def a_person_moves_what_is_offered(self, worker: str, delay: int) -> None:
        """What is noted of it is void, and a worker that knows its task comes next."""
        self.reschedule(min(self.model.offers).split()[0], None, delay, False, 0)
        self.take_what_is_offered(worker, 4)

    def claim_that_takes_nothing(self, worker: str, way: str) -> None:
        self.may()
        first = self.model.first_day()
        day = "99991231" if way == "another day" else first or "20300318"
        if way == "paused":
            self.shard.client.hset(KEYS.meta, "paused", "1")
        call = calls.claim(KEYS, day=day, worker=worker, lease_ms=LEASE, limit=2, lane=self.lane(9), now=self.now)
        claimed = calls.read_claim(self.run(call))
        self.model.contact(self.given, LEASE)
        assert claimed.jobs == []
        if way == "paused":
            assert claimed.word == "paused"
            self.shard.client.hdel(KEYS.meta, "paused")
        else:
            assert (claimed.word, claimed.day) == (("moved", first) if first else ("empty", ""))

    def step_down(self, worker: str) -> None:
        self.may()
        waiting = Waiting.read(self.shard)
        self.run(calls.step_down(KEYS, worker, lane=self.lane(9), now=self.now))
        self.model.contact(self.given)
        assert Waiting.read(self.shard) == waiting.without(worker)

    @rule(worker=workers, way=st.sampled_from(("another day", "paused", "step down", "crash")))
    def claim_nothing(self, worker: str, way: str) -> None:
        """A claim that gets nothing for another reason than that nothing is due, or a worker that dies."""
        if way == "crash":
            self.crash(worker)
        elif way == "step down":
            self.step_down(worker)
        else:
            self.claim_that_takes_nothing(worker, way)
