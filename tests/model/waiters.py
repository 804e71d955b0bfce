"""The rules of waiting beside those of jobs: workers that step down, die, or have a role for longer than any can."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.lua.shard import KEYS
from zwheel import calls

from .machine import QueueMachine
from .strategies import LEASE, workers
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

    def claim_that_takes_nothing(self, worker: str, way: str) -> None:
        self.may()
        first = self.model.first_day()
        limit = 0 if way == "step down" else 2
        day = "99991231" if way == "another day" else first or "20300318"
        if way == "paused":
            self.shard.client.hset(KEYS.meta, "paused", "1")
        call = calls.claim(KEYS, day=day, worker=worker, lease_ms=LEASE, limit=limit, lane=self.lane(9), now=self.now)
        waiting = Waiting.read(self.shard)
        claimed = calls.read_claim(self.run(call))
        self.model.contact(self.given, 0 if way == "step down" else LEASE)
        assert claimed.jobs == []
        if way == "step down":
            assert claimed.word == "stepped"
            assert Waiting.read(self.shard) == waiting.without(worker)
        elif way == "paused":
            assert claimed.word == "paused"
            self.shard.client.hdel(KEYS.meta, "paused")
        else:
            assert (claimed.word, claimed.day) == (("moved", first) if first else ("empty", ""))

    @rule(worker=workers, way=st.sampled_from(("another day", "paused", "step down", "crash")))
    def claim_nothing(self, worker: str, way: str) -> None:
        """A claim that gets nothing for another reason than that nothing is due, or a worker that dies."""
        if way == "crash":
            self.crash(worker)
        else:
            self.claim_that_takes_nothing(worker, way)
