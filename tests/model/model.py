"""The queue as it is meant to be, in plain Python: states, buckets, tokens, attempts, dedup keys and the grace period.

One method a transition, named like its script. Each takes the server's time in µs and answers what the script answers;
`keyspace_of` says what Redis then holds. Waiting (the roles and the wake-up tokens) is in `waiting.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from zwheel.calls import Ending
from zwheel.outside import as_text
from zwheel.times import DAY_MS, day_of

from .entries import Answer, Entry, Reaped, Told, Wanted, is_large

FAILURES_KEPT = 5
LEAST_KEPT_MS = 600_000
NOTE_PAGES = 12


@dataclass(slots=True)
class Model:
    """One shard. Times are in ms, but for `time`, `clock` and `beat` and what the methods are given, which are in µs."""

    time: int = 0
    """The server's clock at the last call: what is decided by time is decided by it."""
    clock: int = 0
    """The last stamp: what tokens are made of."""
    beat: int | None = None
    grace: int | None = None
    lease: int = 0
    leased: int | None = None
    """When the longest lease was last noted to be in use."""
    jumps: int = 0
    jump: str | None = None
    restarted: bool = False
    """Whether the server was started again since a reap looked."""
    cap: int | None = None
    precise: bool = False
    trimmed: int = 0
    epoch: int | None = None
    """When the queue was founded, µs."""
    jobs: dict[str, Entry] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    died: dict[str, int] = field(default_factory=dict)
    kept_until: dict[str, int] = field(default_factory=dict)
    dedup: dict[str, str] = field(default_factory=dict)
    windows: dict[str, int] = field(default_factory=dict)
    schedules: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    """Status letter, stamp and text of each."""
    offers: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """By `id fire token`, as it is noted: fire time, token, and until when."""
    asks: dict[str, int] = field(default_factory=dict)
    """When it was asked to cancel what runs, ms, by `id token`."""
    looks: dict[str, int] = field(default_factory=dict)
    """When each is looked at again, ms."""
    large: Callable[[str, int], bool] = is_large
    """Whether the job of an occurrence has a large body."""

    def scheduled(self) -> list[tuple[int, str]]:
        """Fire time and id of every job on the wheel, in the order they will be claimed."""
        return sorted((job.fire, job_id) for job_id, job in self.jobs.items() if job.state == "s")

    def first_day(self) -> str:
        """The earliest bucket, '' when the wheel is empty."""
        wheel = self.scheduled()
        return day_of(wheel[0][0]) if wheel else ""

    def _seen(self, given: int) -> int:
        """Something is written: the time, and a stamp later than the last."""
        self.time = given
        self.clock = max(given, self.clock + 1)
        return given // 1000

    def contact(self, given: int, lease: int = 0) -> int:
        """A worker reached Redis. Returns the end of the grace period, 0: none."""
        now_ms = self._seen(given)
        if self.beat is not None and self.beat - given > 500_000:
            self.jumps += 1
            self.jump = f"{given} {(given - self.beat) // 1000} {self.clock}"
        self.beat = given
        if lease > self.lease or (lease and lease == self.lease and abs(now_ms - (self.leased or 0)) * 2 > lease):
            self.lease, self.leased = lease, now_ms
        return self.grace if self.grace is not None and now_ms < self.grace <= now_ms + self.lease else 0

    def _free(self, job_id: str, now_ms: int, *, force: bool = False) -> None:
        """Give back the dedup key of a job that ended, unless its window lasts."""
        digest = self.jobs[job_id].digest
        if self.dedup.get(digest) == job_id and (force or self.windows.get(digest, 0) <= now_ms):
            del self.dedup[digest]
            self.windows.pop(digest, None)

    def _delete(self, job_id: str) -> None:
        del self.jobs[job_id]
        for place in (self.leases, self.died, self.kept_until):
            place.pop(job_id, None)

    def _keeps(self, job_id: str | None, digest: str) -> bool:
        """Whether a job lives and carries this dedup key."""
        job = self.jobs.get(job_id or "")
        return job is not None and job.alive and job.digest == digest

    def _trim(self, most_dead: int) -> None:
        over = len(self.died) - most_dead
        oldest = sorted(self.died, key=lambda job_id: (self.died[job_id], job_id))
        for job_id in oldest[: min(max(over, 0), 100)]:
            self._delete(job_id)
            self.trimmed += 1

    def enqueue(self, given: int, batch: Sequence[Wanted]) -> list[Answer] | None:
        """All of the batch or, with None, nothing: the queue is full."""
        now_ms, next_ms = given // 1000, -(-given // 1000)
        stamp = max(given, self.clock + 1)
        new: dict[str, Entry] = {}
        taken: dict[str, str] = {}
        ends: dict[str, int | None] = {}
        answers = []
        for want in batch:
            fire = next_ms + want.delay if want.at is None else want.at
            known = new.get(want.id) or self.jobs.get(want.id)
            over = known if known and want.id not in new and want.displaces(known.state) else None
            holder = self._holder(want.digest, now_ms) or taken.get(want.digest)
            if known and not over:
                answers.append(Answer(letter="i", id=want.id, state=known.state, fire=known.fire))
            elif holder and not (over and holder == want.id):
                held = new.get(holder) or self.jobs.get(holder)
                state, at = (held.state, held.fire) if held else ("d", 0)
                answers.append(Answer(letter="k", id=holder, state=state, fire=at))
            else:
                entry = Entry(state="s", fire=fire, token=stamp, most=want.most, keep=want.keep, digest=want.digest)
                entry = replace(entry, large=want.large)
                new[want.id] = replace(entry, token=max(stamp, over.token + 1)) if over else entry
                if want.digest:
                    taken[want.digest] = want.id
                    ends[want.digest] = None if want.window is None else now_ms + want.window
                answers.append(Answer(letter="r" if over else "c", id=want.id, state="s", fire=fire))
        living = sum(job.alive for job in self.jobs.values())
        if new and self.cap is not None and living + len(new) > self.cap:
            return None
        self._seen(given)
        if self.epoch is None:
            self.epoch = stamp
        for job_id in new.keys() & self.jobs.keys():
            self._delete(job_id)
        self.jobs |= new
        self.dedup |= taken
        for digest, end in ends.items():
            self.windows.pop(digest, None)
            if end is not None:
                self.windows[digest] = end
        return answers

    def _holder(self, digest: str, now_ms: int) -> str | None:
        holder = self.dedup.get(digest)
        return holder if self._keeps(holder, digest) or self.windows.get(digest, 0) > now_ms else None

    def claim(
        self, given: int, *, worker: str, lease: int, limit: int, knows: bool = False, reach: int = 0
    ) -> list[str]:
        """Ids of the jobs that were claimed, from the earliest bucket only, so many ms ahead: what is offered to it first."""
        self.contact(given, lease)
        now_ms = given // 1000
        day = self.first_day()
        taken = self._take_offered(now_ms, day, limit) if knows and day else []
        due = [i for fire, i in self.scheduled() if fire <= now_ms + reach and day_of(fire) == day and i not in taken]
        due = taken + due[: limit - len(taken)]
        for job_id in due:
            job = self.jobs[job_id]
            self.jobs[job_id] = replace(
                job, state="p", attempt=job.attempt + 1, token=max(self.clock, job.token + 1), worker=worker
            )
            self.leases[job_id] = now_ms + lease
        return due

    def _take_offered(self, now_ms: int, day: str, limit: int) -> list[str]:
        """The first jobs that are offered, with the fire times that they had; notes that say something else go."""
        taken: list[str] = []
        for number in range(1, NOTE_PAGES + 1):
            page = min(1000, limit - len(taken) + 2**number)
            notes = sorted(self.offers, key=lambda note: (self.offers[note][2], note))[:page]
            gone = 0
            for note in notes:
                fire, token, until = self.offers[note]
                job = self.jobs.get(note.split()[0])
                holds = job is not None and (job.state, job.token, job.fire) == ("s", token, until)
                void = not holds or until <= now_ms or fire > now_ms
                if not void and day_of(until) == day and len(taken) < limit:
                    taken.append(note.split()[0])
                    self.jobs[taken[-1]] = replace(self.jobs[taken[-1]], fire=fire)
                    void = True
                if void:
                    gone += 1
                    del self.offers[note]
            if not gone or len(notes) < page or len(taken) >= limit:
                break
        return taken

    def offer(self, given: int, claims: Iterable[tuple[str, int]], *, stands: int) -> str:
        """Put back for later, and noted for those that know the task: a letter a job, or a refusal. What nobody took in
        its time is noted no more."""
        self.contact(given)
        now_ms = given // 1000
        until = min(-(-given // 1000) + stands, now_ms - now_ms % DAY_MS + DAY_MS - 1)
        void = [note for note, (_, _, end) in self.offers.items() if end <= now_ms]
        letters = ""
        for job_id, token in claims:
            refused = self._refusal(job_id, token) or self._heed(job_id)
            letters += refused or "o"
            if not refused:
                job = self.jobs[job_id]
                self.offers[f"{job_id} {job.fire:015d} {token:016d}"] = job.fire, token, until
                self.jobs[job_id] = replace(job, state="s", attempt=max(0, job.attempt - 1), fire=until)
                del self.leases[job_id]
        if "o" in letters:
            for note in void:
                del self.offers[note]
        return letters

    def _refusal(self, job_id: str, token: int) -> str:
        """f fenced, m missing, '' when the token holds the job."""
        job = self.jobs.get(job_id)
        if job is None:
            return "m"
        return "" if job.state == "p" and job.token == token else "f"

    def _heed(self, job_id: str, *, asked: bool = False) -> str:
        """c when the job is cancelled now, since that was asked for, else ''."""
        job = self.jobs[job_id]
        if job.asked is None and not asked:
            return ""
        self._cancelled(job_id, self.time // 1000)
        del self.leases[job_id]
        return "c"

    def _cancelled(self, job_id: str, now_ms: int) -> None:
        self._free(job_id, now_ms, force=True)
        job = self.jobs[job_id] = replace(self.jobs[job_id], state="c")
        self.kept_until[job_id] = now_ms + max(job.keep, LEAST_KEPT_MS)

    def settle(
        self, given: int, done: Iterable[tuple[str, int]], others: Iterable[Ending] = (), *, most_dead: int
    ) -> str:
        """A letter a job, those that ended well first: what is asked for, or a refusal."""
        self.contact(given)
        letters = ""
        for job_id, token in done:
            refused = self._refusal(job_id, token)
            letters += refused or "d"
            if not refused:
                self._end_well(job_id)
        for one in others:
            job_id = as_text(one.job_id)
            refused = self._refusal(job_id, int(one.token)) or self._heed(job_id, asked=one.letter == "c")
            letters += refused or one.letter
            if not refused and one.letter == "x":
                self._die(job_id, one.failures)
            elif not refused:
                fire = -(-given // 1000) + one.delay_ms if one.at_ms is None else one.at_ms
                self._go_back(job_id, fire, one.letter == "b", one.failures)
        if "x" in letters:
            self._trim(most_dead)
        return letters

    def _end_well(self, job_id: str) -> None:
        job = self.jobs[job_id]
        self._free(job_id, self.time // 1000)
        self._delete(job_id)
        if job.keep:
            self.jobs[job_id] = replace(job, state="d")
            self.kept_until[job_id] = self.time // 1000 + job.keep

    def _go_back(self, job_id: str, fire: int, unharmed: bool, failures: bytes) -> None:
        job = self.jobs[job_id]
        attempt = max(0, job.attempt - 1) if unharmed else job.attempt
        kept = failures or job.failures
        self.jobs[job_id] = replace(job, state="s", attempt=attempt, fire=fire, failures=kept)
        del self.leases[job_id]

    def _die(self, job_id: str, failures: bytes) -> None:
        self._free(job_id, self.time // 1000)
        self.jobs[job_id] = replace(self.jobs[job_id], state="x", failures=failures)
        del self.leases[job_id]
        self.died[job_id] = self.time // 1000

    def extend(self, given: int, claims: Iterable[tuple[str, int]], *, lease: int) -> str:
        """A letter a job: k kept, or a refusal."""
        self.contact(given, lease)
        letters = ""
        for job_id, token in claims:
            letter = self._refusal(job_id, token) or "k"
            if letter == "k":
                self.leases[job_id] = given // 1000 + lease
            letters += letter
        return letters

    def reap(
        self, given: int, *, lease: int, limit: int, most_dead: int, expected: int | None = None, jumped: int = 0,
        jumps: int | None = None,
    ) -> Reaped:  # fmt: skip
        """End of the grace period, or 0 and the ids that are due again and those that are dead; how many leases shrank."""
        before = self.lease
        grace = self.contact(given, lease)
        now_ms, next_ms = given // 1000, -(-given // 1000)
        if jumped and self._is_news(given, jumped):
            self.jumps += 1
            self.jump = f"{given} {jumped} {self.clock}"
            self.leased = now_ms
        if jumped > 0 or self.restarted:
            self.restarted, self.leased = False, now_ms
            grace = self.grace = now_ms + self.lease
        if grace:
            return Reaped(grace=grace, jumps=self.jumps)
        if self.grace is not None and self.grace > now_ms:
            self.grace = None
        off = expected is not None and abs(given - expected) * 3 > lease * 1000
        if off or jumps not in (None, self.jumps):
            return Reaped(doubted=True, jumps=self.jumps)
        self._forget(now_ms, lease, before)
        wrong = [i for i, until in self.leases.items() if until > now_ms + self.lease + 1000]
        wrong = sorted(wrong, key=lambda i: (self.leases[i], i))[:limit]
        self.leases |= dict.fromkeys(wrong, now_ms + self.lease)
        over = sorted((until, job_id) for job_id, until in self.leases.items() if until <= now_ms)[:limit]
        back, dead, cancelled = [], [], []
        for _, job_id in over:
            job = self.jobs[job_id]
            if self._heed(job_id):
                cancelled.append(job_id)
                continue
            line = f'{{"at":{now_ms},"attempt":{job.attempt},"reason":"lease_expired","worker":"{job.worker}",'
            line += f'"claimed":{job.token // 1000}}}\n'
            failures = b"".join([*(job.failures or b"").splitlines(keepends=True), line.encode()][-FAILURES_KEPT:])
            if job.attempt >= job.most:
                self._die(job_id, failures)
                dead.append(job_id)
            else:
                self.jobs[job_id] = replace(job, state="s", fire=next_ms, failures=failures)
                del self.leases[job_id]
                back.append(job_id)
        if dead:
            self._trim(most_dead)
        return Reaped(back=back, dead=dead, cancelled=cancelled, shortened=len(wrong), jumps=self.jumps)

    def _is_news(self, given: int, jumped: int) -> bool:
        """Whether a jump that a worker tells of is another one than the last: not soon after it in the same direction."""
        if self.jump is None:
            return True
        at, by, _ = map(int, self.jump.split())
        return abs(given - at) >= 60_000_000 or (by > 0) != (jumped > 0)

    def _forget(self, now_ms: int, lease: int, before: int) -> None:
        """Give up the longest lease when nobody used it for two of them."""
        noted = self.leased or 0
        if before and self.lease > lease and (noted > now_ms or now_ms - noted > 2 * self.lease):
            self.lease, self.leased = self.lease if noted > now_ms else lease, now_ms

    def cancel(self, given: int, ids: Iterable[str], *, day: str) -> str:
        """A letter a job: c cancelled, q asked for, a cancelled before, e ended, m missing, v in another bucket."""
        now_ms = self._seen(given)
        letters = ""
        for job_id in ids:
            letter = self._movable(job_id, day)
            if not letter:
                letter = "c"
                self._cancelled(job_id, now_ms)
            elif letter == "r":
                letter = "q"
                job = self.jobs[job_id]
                self.jobs[job_id] = replace(job, asked=job.asked or now_ms)
                self.asks[f"{job_id} {job.token:016d}"] = now_ms
            elif letter == "e" and self.jobs[job_id].state == "c":
                letter = "a"
            letters += letter
        if "q" in letters:
            self.asks = {ask: at for ask, at in self.asks.items() if at > now_ms - DAY_MS}
        return letters

    def _movable(self, job_id: str, day: str) -> str:
        job = self.jobs.get(job_id)
        if job is None:
            return "m"
        if not job.alive:
            return "e"
        if job.state == "p":
            return "r"
        return "" if day_of(job.fire) == day else "v"

    def reschedule(self, given: int, job_id: str, *, day: str, at: int | None, delay: int) -> str:
        """s rescheduled, or why not; then nothing changed."""
        letter = self._movable(job_id, day)
        if letter:
            return letter
        self._seen(given)
        fire = -(-given // 1000) + delay if at is None else at
        self.jobs[job_id] = replace(self.jobs[job_id], fire=fire)
        return "s"

    def redrive(self, given: int, ids: Iterable[str]) -> str:
        """A letter a job: r redriven, n not dead, k its dedup key is held by another."""
        self._seen(given)
        letters = ""
        for job_id in ids:
            digest = self.jobs[job_id].digest if job_id in self.died else ""
            if job_id not in self.died:
                letters += "n"
            elif digest and self.dedup.get(digest, job_id) != job_id:
                letters += "k"
            else:
                letters += "r"
                fire = -(-given // 1000)
                self.jobs[job_id] = replace(self.jobs[job_id], state="s", attempt=0, fire=fire)
                del self.died[job_id]
                if digest:
                    self.dedup[digest] = job_id
        return letters

    def purge(self, given: int, ids: Iterable[str]) -> None:
        """Delete these."""
        now_ms = self._seen(given)
        for job_id in ids:
            self._free(job_id, now_ms, force=True)
            self._delete(job_id)

    def prune(self, given: int, *, dead_age: int) -> int:
        """Delete what is past its retention. Returns how many of the fullest kind."""
        now_ms = self._seen(given)
        ended = [job_id for job_id, until in self.kept_until.items() if until <= now_ms]
        old = [job_id for job_id, died in self.died.items() if died <= now_ms - dead_age]
        over = [digest for digest, end in self.windows.items() if end <= now_ms]
        for digest in over:
            del self.windows[digest]
            if not self._keeps(self.dedup.get(digest), digest):
                self.dedup.pop(digest, None)
        for job_id in ended + old:
            self._delete(job_id)
        self.trimmed += len(old)
        return max(len(ended), len(old), len(over))

    def _place(self, told: Told) -> str:
        """Put occurrences on the wheel. A letter a job: c created, i the id exists."""
        letters = ""
        for job_id, fire in told.jobs:
            letters += "i" if job_id in self.jobs else "c"
            large = self.large(job_id, fire)
            entry = Entry(state="s", fire=fire, token=self.clock, most=3, keep=60_000, digest="", large=large)
            self.jobs.setdefault(job_id, entry)
        return letters

    def _tell(self, name: str, told: Told) -> None:
        self.looks.pop(name, None)
        if not told.letter:
            self.schedules.pop(name, None)
            return
        self.schedules[name] = (told.letter, self.clock, told.tail)
        if told.due is not None:
            self.looks[name] = told.due

    def advance(self, given: int, name: str, stamp: int, free: Told, before: str, busy: Told | None) -> str:
        """s stale; or a, or b while the occurrence before is active, and a letter a job."""
        self._seen(given)
        if name not in self.schedules or self.schedules[name][:2] != ("a", stamp):
            return "s"
        active = busy is not None and before in self.jobs and self.jobs[before].alive
        told = busy if active and busy is not None else free
        self._tell(name, told)
        return ("b" if active else "a") + self._place(told)

    def define(
        self, given: int, name: str, stamp: int | None, told: Told, back: Mapping[str, int],
        late: Mapping[str, tuple[int, int]] | None = None,
    ) -> tuple[str, list[str]]:  # fmt: skip
        """The letters of the jobs, or `stale`, `started` with those that have left the wheel, `early` with those that may
        still start; then nothing changed. late: tokens and latest starts of those that are held."""
        late = late or {}
        known = self.schedules.get(name)
        if (known[1] if known else None) != stamp:
            return "stale", []
        waiting = [
            i for i, fire in back.items()
            if i in self.jobs and (self.jobs[i].state, self.jobs[i].attempt, self.jobs[i].fire) == ("s", 0, fire)
        ]  # fmt: skip
        held = [
            i for i, (token, _) in late.items()
            if i in self.jobs and self.jobs[i].state == "p" and self.jobs[i].token == token
        ]  # fmt: skip
        started = [i for i in (*back, *late) if i not in waiting and i not in held]
        if started:
            return "started", started
        early = [i for i in held if given // 1000 <= late[i][1]]
        if early:
            return "early", early
        self._seen(given)
        if self.epoch is None:
            self.epoch = self.clock
        for job_id in (*waiting, *held):
            self._delete(job_id)
        self._tell(name, told)
        return self._place(told), []
