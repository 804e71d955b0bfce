"""Histories of queues that were cut into another number of shards: what jobs did in the shards of all cuts counts together."""

from __future__ import annotations

import pytest

from zwheel.keys import shard_names, shard_number

from .book import DIGEST, Book, on_wheel

NEW = shard_names("q", 2)


def home(job: str) -> str:
    return NEW[shard_number(job, 2)]


def cut(book: Book, t: float) -> None:
    """At this time the queue `q` has two shards instead of one."""
    for shard in NEW:
        book.call("reshard", t, [], proc="m", args={"step": "open"}, queue=shard)
    book.call("reshard", t, [], proc="m", args={"step": "close"})


def carry(book: Book, job: str, t: float, **more: object) -> None:
    """Let a job move from the former shard to the one where it belongs."""
    book.call("depart", t, [{"id": job, "letter": ""}], proc="m")
    book.call("arrive", t + 1, [{"id": job, "letter": "a"}], proc="m", queue=home(job), **more)  # type: ignore[arg-type]


def snapshot(book: Book, t: float, *jobs: str) -> None:
    for shard in NEW:
        book.snapshot(t, {job: on_wheel(60_000) for job in jobs if home(job) == shard}, queue=shard)


def judged(book: Book) -> list[str]:
    return [verdict.number for verdict in book.judge().broken]


def test_a_job_that_moved_is_where_it_belongs(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.enqueue("b", fire=60_000)
    cut(book, 100)
    carry(book, "a", 200)
    carry(book, "b", 200)
    snapshot(book, 5_000, "a", "b")
    assert judged(book) == []


def test_a_job_that_moved_runs_in_its_new_shard(book: Book) -> None:
    book.enqueue("a", fire=500)
    cut(book, 100)
    carry(book, "a", 200)
    book.claim("a", 600, fire=500, queue=home("a"))
    book.settle("complete", "a", 620, of=600, queue=home("a"))
    snapshot(book, 5_000)
    assert judged(book) == []


def test_a_job_that_never_arrived_is_lost(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    cut(book, 100)
    book.call("depart", 200, [{"id": "a", "letter": ""}], proc="m")
    snapshot(book, 5_000)
    assert judged(book) == ["I1"]


def test_a_job_that_is_on_its_way_is_not_lost(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    cut(book, 100)
    book.call("depart", 200, [{"id": "a", "letter": ""}], proc="m")
    book.snapshot(5_000, {}, leaving=["a"])
    snapshot(book, 5_000)
    assert judged(book) == []


def test_a_job_that_ran_in_both_cuts_ran_without_a_cause(book: Book) -> None:
    book.enqueue("a", fire=50)
    cut(book, 100)
    book.claim("a", 150, fire=50)
    book.settle("complete", "a", 160, of=150)
    carry(book, "a", 200)
    book.claim("a", 600, fire=50, queue=home("a"), by="w2")
    book.settle("complete", "a", 620, of=600, queue=home("a"), by="w2")
    snapshot(book, 5_000)
    assert {"I7", "I13"} <= set(judged(book))


def test_a_job_that_is_held_in_both_cuts_has_two_holders(book: Book) -> None:
    book.enqueue("a", fire=50)
    cut(book, 100)
    book.claim("a", 150, fire=50)
    book.claim("a", 300, fire=50, queue=home("a"), by="w2", attempt=2)
    book.settle("complete", "a", 320, of=300, queue=home("a"), by="w2")
    snapshot(book, 5_000)
    assert {"I4", "I7"} <= set(judged(book))


def test_an_id_that_is_made_anew_while_it_lives_in_the_former_shard_is_found(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    cut(book, 100)
    book.enqueue("a", 150, fire=60_000, queue=home("a"))
    snapshot(book, 5_000, "a")
    assert judged(book) == ["I13"]


def test_a_dedup_key_has_one_holder_in_all_cuts(book: Book) -> None:
    book.enqueue("a", fire=60_000, digest=DIGEST)
    cut(book, 100)
    shard = NEW[shard_number(DIGEST, 2)]
    book.enqueue("b", 150, fire=60_000, digest=DIGEST, queue=shard)
    held = [[DIGEST, "b", None]]
    book.snapshot(5_000, {name: on_wheel(60_000, digest=DIGEST) for name in "ab"}, queue=shard, dedup=held)
    book.snapshot(5_000, {}, queue=NEW[1 - NEW.index(shard)])
    assert "I11" in judged(book)


def test_what_was_on_its_way_while_the_server_lost_writes_may_be_gone(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    cut(book, 100)
    carry(book, "a", 2_000)
    book.fault("loss", 1_900, 2_100)
    snapshot(book, 5_000)
    assert judged(book) == []


def test_a_mover_that_got_no_answer_moved_nothing_that_is_missed(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    cut(book, 100)
    book.call("depart", 200, [{"id": "a"}], proc="m", phase="lost")
    carry(book, "a", 300)
    snapshot(book, 5_000, "a")
    assert judged(book) == []


def test_a_dead_job_that_was_deleted_in_a_former_shard_is_counted_in_the_first_one(book: Book) -> None:
    book.enqueue("a", fire=0)
    book.claim("a", 50)
    book.settle("bury", "a", 60, of=50)
    cut(book, 100)
    for shard in NEW:
        book.snapshot(5_000, {}, queue=shard, meta={"trimmed": "1"} if shard == NEW[0] else {})
    assert judged(book) == []


def test_what_was_purged_in_the_former_shard_is_not_missed(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.call("purge", 80, [], proc="p", args={"set": "wheel", "count": 1})
    cut(book, 100)
    snapshot(book, 5_000)
    assert judged(book) == []


@pytest.mark.parametrize("anew", [True, False])
def test_a_schedule_goes_on_in_its_new_shard(book: Book, anew: bool) -> None:
    """What it does there is built on what it did in its former shard."""
    book.schedule("define", 0, on=None, cursor=0)
    book.schedule("advance", 1_000, on=0, cursor=2_000, fires=(1_000, 2_000))
    cut(book, 1_100)
    shard = NEW[shard_number("s", 2)]
    on = 0 if anew else 1_000
    book.schedule("advance", 2_900, on=on, cursor=3_000, fires=(3_000,), queue=shard)
    assert ("I14" in judged(book)) is anew


def test_an_enqueue_that_was_refused_in_the_former_cut_names_a_holder_of_that(book: Book) -> None:
    book.enqueue("a", fire=60_000, digest=DIGEST)
    book.enqueue("b", 50, fire=60_000, digest=DIGEST, letter="k", held="a")
    cut(book, 100)
    shard = NEW[shard_number(DIGEST, 2)]
    book.call("depart", 200, [{"id": "a", "letter": ""}], proc="m")
    book.call("arrive", 201, [{"id": "a", "letter": "a"}], proc="m", queue=shard)
    book.snapshot(5_000, {"a": on_wheel(60_000, digest=DIGEST)}, queue=shard, dedup=[[DIGEST, "a", None]])
    book.snapshot(5_000, {}, queue=NEW[1 - NEW.index(shard)])
    assert judged(book) == []
