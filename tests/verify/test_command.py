"""`zwheel verify` as a person calls it: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .book import Book


def verify(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zwheel.cli", "verify", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_history_that_holds_ends_with_0(book: Book) -> None:
    book.enqueue("a")
    book.run("a")
    book.snapshot(5_000)
    book.judge()
    done = verify(book.path.parent, "--reap", "500ms", "--lateness", "1s")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len([line for line in lines if " held: " in line]) == 21
    assert "jobs                   1" in lines
    assert "starts                 1" in lines


def test_a_broken_promise_ends_with_9_and_shows_its_proof(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claim("a", 10, fire=1_000)
    book.judge()
    done = verify(book.path)
    assert done.returncode == 9
    assert "I3   broken: nothing is early" in done.stdout
    assert "q/a: the job was claimed before its fire time" in done.stdout
    assert "history.jsonl:4" in done.stdout
    documents = [json.loads(line) for line in verify(book.path, "--json").stdout.splitlines()]
    assert documents[-1]["broken"] == ["I3"]
    (early,) = [d for d in documents if d.get("invariant") == "I3"]
    assert (early["state"], early["count"], early["breaches"][0]["job"]) == ("broken", 1, "q/a")


def test_a_file_that_is_no_history_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"some": "thing"}\n')
    for words in ((tmp_path / "x.jsonl",), (tmp_path / "absent",), (), ("--snapshot", tmp_path)):
        done = verify(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1


def test_a_last_line_that_was_cut_off_is_left_out(book: Book) -> None:
    book.enqueue("a")
    book.run("a")
    book.judge()
    text = book.path.read_text()
    book.path.write_text(text + text.splitlines()[-1][:50])
    assert verify(book.path, "--reap", "500ms").returncode == 0
