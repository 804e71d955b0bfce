"""Histories in which a worker with room sleeps while a job is due, each in one way."""

from __future__ import annotations

from collections.abc import Callable

from .book import Book, on_wheel


def idle_while_due(book: Book) -> None:
    """Other workers work, and a follower finds the job by its look, too late."""
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="follower")
    for t in range(600, 2_700, 300):
        book.beat(t, by="w2")
    book.claim("a", 2_700, fire=1_000)


def idle_while_due_although_others_are_dead(book: Book) -> None:
    """The second looks every second, whatever happens to other workers."""
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="follower", by="w2")
    book.claims(500, [], role="follower", by="w3")
    book.claims(550, [], role="second")
    book.look(900)
    book.claim("a", 2_600, fire=1_000)


def idle_while_due_for_longer_than_any_look(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="timekeeper", by="w2")
    book.claims(500, [], role="second", by="w3")
    book.claims(550, [], role="follower")
    book.claim("a", 3_500, fire=1_000)


def idle_although_it_sees_to_the_shard(book: Book) -> None:
    """It alone looks in time where a fleet spares, and took a second and a half."""
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="timekeeper", by="w2")
    book.claims(500, [], role="second", by="w3")
    book.claims(550, [], role="follower", waits="sees")
    book.claim("a", 2_600, fire=1_000)


def idle_without_a_later_claim(book: Book) -> None:
    """It looks and looks, and never claims what is due."""
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="timekeeper")
    for t in range(900, 3_000, 700):
        book.look(t)
    book.snapshot(3_000, {"a": on_wheel(1_000)})


#: What it is -> the promises that it breaks, how many events prove it, and who writes it.
IDLE: dict[str, tuple[set[str], int, Callable[[Book], None]]] = {
    "idle while due": ({"I25"}, 3, idle_while_due),
    "idle while due although others are dead": ({"I25"}, 3, idle_while_due_although_others_are_dead),
    "idle while due for longer than any look": ({"I25"}, 3, idle_while_due_for_longer_than_any_look),
    "idle although it sees to the shard": ({"I25"}, 3, idle_although_it_sees_to_the_shard),
    "idle without a later claim": ({"I25"}, 2, idle_without_a_later_claim),
}
