"""One run: who takes part, who moves next, what befalls them, and the drain at the end."""

from __future__ import annotations

from collections.abc import Callable

from tests.endings import complete
from tests.simulator import actors, former, people, reapers, schedules
from tests.simulator.life import ALL
from tests.simulator.promise import must
from tests.simulator.world import (
    KEYS,
    LEASE_MS,
    LEASE_US,
    NETWORK_FAULTS,
    PREFIX,
    SECOND_US,
    Acting,
    Actor,
    Crash,
    Process,
    World,
)
from zwheel import calls
from zwheel.calls import After, Call, Lane
from zwheel.errors import BrokerError
from zwheel.times import DAY_MS

EVENTS = ("pause", "kill", "forward", "back", "slip", "away", "cut", "script flush")
_LOOK_EVERY = 20
_SEATS = 16
#: A lease may end as many hours later as the lost clock was set back, and the drain looks at it every 10 s.
_DRAIN_LIMIT = 6000


class Fleet:
    """The processes of one run, and the scheduler."""

    def __init__(self, world: World) -> None:
        self.world = world
        decisions = world.decisions
        world.time_us += decisions.pick((-500_000, 12 * 3600 * SECOND_US))
        world.clock_off_us = decisions.pick((0, 3600 * SECOND_US, -SECOND_US))
        self._concurrency = decisions.pick((2, 1, 4))
        # What nobody can read takes places in the dead set, and only the server knows how many.
        self._most_dead = 1000 if world.damage else decisions.pick((100, 2, 1))
        self._longest_ms = decisions.pick((DAY_MS, 50_000, 35_000))
        world.faults = [name for name in NETWORK_FAULTS if decisions.chance(0.6)]
        world.fault_rate = decisions.pick((0.0, 0.08, 0.2, 0.35))
        self._events = [name for name in (*EVENTS, "forward", "away") if decisions.chance(0.6)]
        if world.damage:
            # What is struck is not in the log that a cut plays again.
            self._events = [name for name in self._events if name != "cut"] + ["strike", "strike"]
        self._event_rate = decisions.pick((0.0, 0.02, 0.05, 0.1))
        if world.clock:
            world.fault_rate, self._events = 0.0, ["forward", "back", "slip", "kill"]
            self._event_rate = decisions.pick((0.01, 0.03, 0.1))
        world.calm_at = world.time_us + decisions.pick((3, 0, 10, 30)) * SECOND_US
        self._started = 0
        self._spare: list[tuple[int, Callable[[], None]]] = []
        for _ in range(1 + decisions.choose(2)):
            self._start("producer", actors.producer)
        for _ in range(1 + decisions.choose(3)):
            self._start_worker()
        for _ in range(1 + decisions.choose(2)):
            self._start_reaper()
        for _ in range(decisions.choose(3)):
            self._start("operator", people.operator)
        if decisions.chance(0.6):
            self._start("tender", schedules.tender)
            for _ in range(1 + decisions.choose(2)):
                self._start("scheduler", schedules.scheduler)
        if decisions.chance(0.4):
            world.execute([("HSET", KEYS.meta, "precise", 1)], "person")
        if decisions.chance(0.3):
            # One more person, who has set a cap and will lift it.
            world.execute([("HSET", KEYS.meta, "cap", decisions.pick((2, 3, 8)))], "person")
            self._start("operator", people.operator)
        if decisions.chance(0.5):
            self._start("zombie", lambda world, process: actors.zombie(world, process, self._most_dead))

    def _process(self, kind: str, restart: Callable[[], None]) -> Process:
        self._started += 1
        name = f"{kind}{self._started}"
        off_us = self.world.decisions.pick((0, 900_000, -900_000, DAY_MS * 1000))
        return Process(name, self.world.session(name, off_us), restart)

    def _start(self, kind: str, make: Callable[[World, Process], Acting]) -> None:
        process = self._process(kind, lambda: self._start(kind, make))
        self._sit(process.name, process, make(self.world, process))

    def _sit(self, name: str, process: Process, steps: Acting) -> Actor:
        taken = {actor.seat for actor in self.world.actors}
        seat = min(set(range(2 * _SEATS)) - taken)
        actor = Actor(name, process, steps, self.world.time_us, seat)
        self.world.actors.append(actor)
        return actor

    def _start_worker(self) -> None:
        process = self._process("worker", self._start_worker)
        hands = actors.Hands(
            self.world, process, f"w{self._started:07d}", self._concurrency, self._most_dead, self._longest_ms
        )

        def listen(on: bool) -> None:
            loop.listens = on

        loop = self._sit(process.name, process, actors.poller(hands, listen))
        self._sit(f"{process.name}♥", process, actors.heartbeat(hands))
        self._sit(f"{process.name}†", process, reapers.reaper(self.world, process, self._most_dead))

    def _start_reaper(self) -> None:
        """A worker that never has room."""
        process = self._process("reaper", self._start_reaper)
        self._sit(process.name, process, reapers.reaper(self.world, process, self._most_dead))
        self._sit(f"{process.name}♥", process, reapers.beat(self.world, process))

    def run(self, steps: int) -> None:
        """Let everybody move for so many steps, then drain."""
        world = self.world
        for number in range(steps):
            if not world.decisions.left:
                break
            world.decisions.next_step()
            wanted = world.decisions.choose(_SEATS)
            self._befall()
            self._move(wanted)
            if number % _LOOK_EVERY == 0:
                world.look()
        world.look()
        world.decisions.next_step()
        Drain(world).run()

    def _move(self, wanted: int) -> None:
        """The next who may, from a seat on: who it is does not change when others take no part."""
        world = self.world
        for at, post in [late for late in world.late if late[0] <= world.time_us]:
            world.late.remove((at, post))
            if world.time_us >= world.away_until:
                world.execute(post, "late")
        for at, restart in [spare for spare in self._spare if spare[0] <= world.time_us]:
            self._spare.remove((at, restart))
            restart()
        times = [max(actor.ready_at, actor.process.paused_until) for actor in world.actors]
        world.time_us = max(world.time_us, min(times + [at for at, _ in self._spare]))
        ready = [actor for actor, at in zip(world.actors, times, strict=True) if at <= world.time_us]
        if not ready:
            return
        actor = min(ready, key=lambda actor: (actor.seat - wanted) % _SEATS)
        try:
            self._advance(actor)
        except Crash:
            self._kill(actor.process, "dies in an exchange")

    def _advance(self, actor: Actor) -> None:
        actor.listens = False
        if actor.process.paused_until:
            self.world.mark("resumed after a pause")
            actor.process.paused_until = 0
        if actor.sending is None:
            ask = actor.steps.send([]) if actor.begun else next(actor.steps)
            actor.begun = True
        else:
            try:
                replies = self.world.exchange(actor, actor.sending)
            except BrokerError as error:
                ask = actor.steps.throw(error)
            else:
                ask = actor.steps.send(replies)
        if isinstance(ask, float):
            actor.sending = None
            actor.ready_at = self.world.time_us + int(ask * SECOND_US)
        else:
            actor.sending = ask
            actor.ready_at = self.world.time_us + self.world.decisions.pick((0, 0, 5_000))

    def _kill(self, process: Process, why: str) -> None:
        world = self.world
        world.say(process.name, why)
        world.actors = [actor for actor in world.actors if actor.process is not process]
        if process.knows_all:
            # Its row in the list of workers is believed for a minute.
            world.known_until = world.time_us + 60 * SECOND_US
        world.graves += [(job_id.encode(), b"%016d" % token) for job_id, token in process.held]
        if process.held:
            world.mark("worker died with claims")
        if process.pending:
            world.hand_on(*process.pending)
        delay_us = world.decisions.pick((SECOND_US, 100_000, LEASE_US))
        self._spare.append((world.time_us + delay_us, process.restart))

    def _befall(self) -> None:
        world, decisions = self.world, self.world.decisions
        if not self._events or not decisions.chance(self._event_rate):
            return
        event = decisions.pick(self._events)
        if event in ("pause", "kill"):
            process = decisions.pick(world.actors).process if world.actors else None
            if process is None:
                return
            if event == "kill":
                self._kill(process, "is killed")
            else:
                process.paused_until = world.time_us + decisions.pick((2, 1, 4)) * LEASE_US
                process.troubled = True
                world.say(process.name, f"stands still until {process.paused_until}")
        elif event == "script flush":
            world.backend.forget_scripts()
        elif event == "strike":
            self._strike()
        elif event in ("forward", "back"):
            self._shift(1 if event == "forward" else -1)
        elif event == "slip":
            self._slip()
        elif world.time_us >= world.calm_at:
            self._take_away(event)
        else:
            return
        world.mark(event)

    def _shift(self, way: int) -> None:
        """The server's clock jumps, at any time; often it is right again soon, before or after others have met it."""
        decisions = self.world.decisions
        by_us = way * decisions.pick(
            (2 * LEASE_US, 3600 * SECOND_US, LEASE_US // 2, 3 * SECOND_US, DAY_MS * 1000 + 3 * LEASE_US)
        )
        self._jump(by_us)
        if decisions.chance(0.5):
            soon_us = decisions.pick((SECOND_US, SECOND_US // 3, 6 * SECOND_US, LEASE_US))
            self._spare.append((self.world.time_us + soon_us, lambda: self._jump(-by_us)))

    def _slip(self) -> None:
        """For a while one process meets the server only when its clock is wrong, and the others only when it is right."""
        world, decisions = self.world, self.world.decisions
        process = decisions.pick(world.actors).process if world.actors else None
        by_us = decisions.pick((-3600 * SECOND_US, -2 * LEASE_US, -3 * SECOND_US, 3600 * SECOND_US))
        until = world.time_us + decisions.pick((6 * SECOND_US, SECOND_US, LEASE_US))
        if process is not None and world.server_us + min(by_us, 0) > world.lost_us:
            world.slip = process, until, by_us
            world.say("server", f"its clock is off by {by_us / SECOND_US:g} s whenever {process.name} meets it")

    def _jump(self, by_us: int) -> None:
        world = self.world
        if world.judge.floor < world.lost_us and world.server_us + by_us <= world.lost_us:
            # A loss of power took the last stamp with it, and the clock would stand behind that: a token could come again.
            return
        world.clock_off_us += by_us
        world.say("server", f"its clock jumps by {by_us / SECOND_US:g} s")

    def _take_away(self, event: str) -> None:
        """The server is away: once in a lease at most, so that each can be lived through."""
        world, decisions = self.world, self.world.decisions
        away_us = decisions.pick((SECOND_US, LEASE_US // 2, 2 * LEASE_US, 5 * LEASE_US))
        world.away_until = world.time_us + away_us
        world.calm_at = world.away_until + LEASE_US
        world.say("server", f"is away for {away_us / SECOND_US:g} s")
        if event == "cut" and world.log:
            world.time_us += 1
            world.cut(1 + decisions.choose(min(12, len(world.log))))

    def _strike(self) -> None:
        """A person, or another version, damages what is stored; only in runs that are about it."""
        world, decisions = self.world, self.world.decisions
        # Only jobs that nobody enqueues again: a new job of the same id would stand in two places.
        lives = world.judge.lives
        alive = [i for i in lives if lives[i].alive and not lives[i].damaged and i in world.acked and i.startswith("g")]
        alive = [i for i in alive if i not in world.open | world.on_their_way()]
        if not world.damage or not alive:
            return
        kind = decisions.pick(
            ("record", "version", "aside", "clock", "clock", "record", "version", "aside", "clock", "flush")
        )
        if kind == "flush":
            world.flush()
        elif kind == "aside":
            former.set_aside(world)
        elif kind == "clock":
            world.backend.run([("HDEL", KEYS.meta, "clock")])
            world.clock_off_us -= decisions.pick((5, 3600)) * SECOND_US
            world.judge.forget_the_clock()
            world.say("person", "the server forgets its last time, and its clock is set back")
        else:
            job_id = decisions.pick(alive)
            lives[job_id].damaged = True
            world.say("person", f"{job_id} is damaged: {kind}")
            if kind == "record":
                world.backend.run([("HDEL", KEYS.jobs, job_id)])
            else:
                (raw,) = world.backend.run([("HGET", KEYS.jobs, job_id)])
                world.backend.run([("HSET", KEYS.jobs, job_id, b"3" + raw[1:])])


class Drain:
    """Faults are off; one healthy worker and a reaper do what is left, as late as it may be."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._session = world.session("drain")
        self._day = ""

    def run(self) -> None:
        """G9, I1: afterwards each job has ended, once, or a cut or a person explains where it went."""
        world = self._world
        world.say("drain", "faults are over")
        world.actors, world.away_until = [], 0
        world.execute([("HDEL", KEYS.meta, "paused")], "drain")
        for _, post in world.late:
            world.execute(post, "late")
        self._end_schedules()
        if world.damage:
            former.take_all_back(world)
        for _ in range(_DRAIN_LIMIT):
            if not (self._claim() or self._reap()):
                break
        else:
            must(False, f"G9: the queue is not empty after {_DRAIN_LIMIT} rounds")
        world.look()
        lives = world.judge.lives
        stuck = {job_id: life.state for job_id, life in lives.items() if life.alive and not life.damaged}
        must(not stuck, f"I1: never ended: {stuck}")
        lost = [job_id for job_id in world.acked if job_id not in lives and job_id not in world.cut_away]
        must(not lost, f"I1: {lost} were accepted, and nothing knows them")
        if not world.damage:
            self._sweep()

    def _end_schedules(self) -> None:
        """Delete the schedules; what they put on the wheel stays."""
        world = self._world
        for name in schedules.NAMES:
            (raw,) = world.backend.run([("HGET", KEYS.schedules, name)])
            if raw:
                lane = Lane("drain", "define", self._session.request())
                stamp = raw[2:18].decode()
                world.execute([calls.define(KEYS, name, stamp=stamp, after=After("", None, ""), lane=lane)], "drain")

    def _sweep(self) -> None:
        """I20: an empty queue holds nothing but its marks."""
        world = self._world
        world.execute([calls.purge(KEYS, KEYS.dead)], "drain")
        world.time_us += 400 * DAY_MS * 1000
        world.execute([calls.prune(KEYS, limit=1000, dead_age_ms=DAY_MS)], "drain")
        # Requests to cancel what runs have a day to live, by the clock that is not ours.
        kept = {"?", "meta", "wake", "workers", "asked", f"offered:{ALL}", f"call:{ALL}"}
        left = set(world.backend.keyspace(PREFIX)) - kept
        must(not left, f"I20: an empty queue still holds {left}")

    def _advance(self, server_us: int) -> None:
        self._world.time_us += max(0, server_us - self._world.server_us)

    def _claim(self) -> bool:
        world = self._world
        lane = Lane("drain", "claim", self._session.request())
        call = calls.claim(
            KEYS, day=self._day or "19700101", worker="drain000", lease_ms=LEASE_MS, limit=100, lane=lane, group=ALL
        )
        (reply,) = world.execute([call], "drain")
        claimed = calls.read_claim(reply)
        self._day = claimed.day
        if claimed.jobs:
            ends = [(claimed.jobs[i], claimed.jobs[i + 1][21:37]) for i in range(0, len(claimed.jobs), 2)]
            done = complete(KEYS, ends, lane=Lane("drain", "settle", self._session.request()))
            (reply,) = world.execute([done], "drain")
            letters = calls.read_letters(reply)
            must(letters == "d" * len(ends), f"a healthy worker's claims were refused: {letters}")
            return True
        if claimed.next_fire_ms is not None:
            self._advance(max(claimed.next_fire_ms * 1000, claimed.now_us))
        return bool(claimed.day)

    def _reap(self) -> bool:
        """With an empty wheel: take back what the dead still hold, or wait for that. False: nobody holds anything."""
        world = self._world
        reaped = None
        while reaped is None:
            today = (world.server_us + 999) // 1000
            call: Call = calls.reap(KEYS, limit=100, lease_ms=LEASE_MS, most_dead=100, now_ms=today)
            (reply,) = world.execute([call], "drain")
            reaped = calls.read_reap(reply)
        if reaped.looked_at:
            return True
        held = world.backend.keyspace(PREFIX).get("processing", {})
        if held:
            self._advance(reaped.now_us + LEASE_US // 3)
        return bool(held)
