"""Histories of a server that nobody heard for a while: a worker that was there all the time keeps its jobs, or lets them go."""

from __future__ import annotations

from collections.abc import Callable

from .book import LEASE, Book, token


def taken_from_a_dead_worker_after_a_gap(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    for t in range(1_200, 5_000, 300):
        book.beat(t, by="w2", phase="fail")
    book.reap(5_100, ("a",))
    book.run("a", 5_200, attempt=2, fire=5_100, by="w2")
    book.snapshot(9_900)


def held_through_a_gap(book: Book, *, tries_until: int = 5_000) -> None:
    """Redis answers nobody for four seconds; w1, whose job runs, asks until some time in that."""
    book.enqueue("a", most=9)
    book.claim("a", 10, most=9)
    book.start("a", 11, of=10)
    for t in range(300, 5_000, 300):
        pairs = [{"id": "a", "token": token(10)}]
        if t < 1_000:
            book.extend("a", t, of=10)
        elif t < tries_until:
            book.call("extend", t, pairs, phase="fail", args={"lease": LEASE})
        book.beat(t + 1, by="w2", phase="ok" if t < 1_000 else "fail")


def renewed_after_a_gap_and_given_up(book: Book) -> None:
    """The other worker's lease is longer: a lease that was given after the gap may run out within it."""
    held_through_a_gap(book)
    book.claims(5_010, [], by="w2", lease=5_000)
    book.extend("a", 5_020, of=10)
    for t in range(5_300, 6_000, 300):
        book.look(t, by="w1")
    book.reap(6_050, ("a",))
    book.look(6_100, by="w1")
    book.run("a", 6_200, attempt=2, fire=6_050, by="w2", most=9)
    book.snapshot(9_900)


def given_up_in_a_gap(book: Book, outcome: str = "lost") -> None:
    held_through_a_gap(book)
    book.end("a", 4_950, of=10, outcome=outcome)
    book.reap(5_100, ("a",))
    book.look(5_110, by="w1")
    book.run("a", 5_200, attempt=2, fire=5_100, by="w2", most=9)
    book.snapshot(9_900)


def stopped_in_a_gap_and_taken_before_it_could_go_back(book: Book) -> None:
    given_up_in_a_gap(book, "released")


def taken_after_a_whole_lease_of_contact(book: Book) -> None:
    """w2 waits for one lease of the holder, which is shorter than the longest in use."""
    held_through_a_gap(book)
    book.claims(5_010, [], by="w2", lease=5_000)
    for t in range(5_100, 6_000, 300):
        book.look(t, by="w1")
    book.reap(6_050, ("a",))
    book.look(6_100, by="w1")
    book.run("a", 6_200, attempt=2, fire=6_050, by="w2", most=9)
    book.snapshot(9_900)


def frozen_in_the_moment_the_server_froze(book: Book) -> None:
    """It asked once in the gap, was frozen until its job had been taken, and goes on."""
    held_through_a_gap(book, tries_until=1_300)
    book.reap(5_100, ("a",))
    book.extend("a", 5_200, of=10, letter="f")
    book.run("a", 5_200, attempt=2, fire=5_100, by="w2", most=9)
    book.snapshot(9_900)


def frozen_with_a_call_that_the_server_answered_first(book: Book) -> None:
    """Its call was carried out as soon as the server went on; it read the answer when it went on itself."""
    held_through_a_gap(book, tries_until=4_600)
    book.call("claim", 5_000, [], asked=4_600, args={"worker": "w1", "lease": LEASE, "limit": 0, "role": "none"})
    book.lines[-1]["mono_ns"] += 400_000_000
    book.reap(5_350, ("a",))
    book.extend("a", 5_420, of=10, letter="f")
    book.run("a", 5_500, attempt=2, fire=5_350, by="w2", most=9)
    book.snapshot(9_900)


def frozen_with_a_job_that_it_claimed_after_a_gap(book: Book) -> None:
    held_through_a_gap(book)
    book.extend("a", 5_010, of=10)
    book.settle("complete", "a", 5_020, of=10)
    book.enqueue("b", 5_030)
    book.claims(5_040, [], by="w2", lease=5_000)
    book.claim("b", 5_050, fire=5_030)
    book.reap(6_100, ("b",))
    book.extend("b", 6_200, of=5_050, letter="f")
    book.run("b", 6_200, attempt=2, fire=6_100, by="w2")
    book.snapshot(9_900)


def cut_off_alone_after_a_gap(book: Book) -> None:
    held_through_a_gap(book)
    book.beat(5_010, by="w2")
    book.hold(5_012)
    book.extend("a", 5_020, of=10, phase="info")
    book.reap(5_900, ("a",))
    book.extend("a", 5_950, of=10, letter="f")
    book.look(5_400, by="w1")
    book.run("a", 6_000, attempt=2, fire=5_900, by="w2", most=9)
    book.snapshot(9_900)


GAPS: tuple[Callable[[Book], None], ...] = (
    taken_from_a_dead_worker_after_a_gap, renewed_after_a_gap_and_given_up, given_up_in_a_gap,
    stopped_in_a_gap_and_taken_before_it_could_go_back, taken_after_a_whole_lease_of_contact,
    frozen_in_the_moment_the_server_froze, frozen_with_a_call_that_the_server_answered_first,
    frozen_with_a_job_that_it_claimed_after_a_gap, cut_off_alone_after_a_gap,
)  # fmt: skip
