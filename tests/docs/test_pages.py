"""Every code block and command of the README and of `docs/` does what its page says, typed in an empty directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks, pages, shows

#: How long a block may take, what it shows may take to be seen, and a process to end, seconds.
BLOCK_S, SEEN_S, END_S = 120, 60, 30


class Reader:
    """Somebody with an empty home, who follows a page in an empty directory."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "shop"
        self.folder.mkdir()
        home = place / "home"
        home.mkdir()
        kept = {name: os.environ[name] for name in ("LANG", "PYTHONTZPATH") if name in os.environ}
        self.environment = {
            **kept, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1", "TMPDIR": str(place),
        }  # fmt: skip
        self.shown = ""
        self._others: list[tuple[subprocess.Popen[bytes], Path]] = []
        #: What `export` set in the first terminal holds for later blocks.
        self._exports = place / "exports"

    def follow(self, block: Block) -> None:
        """Do what a reader does with one block."""
        if block.not_followed:
            return
        if block.needs is not None:
            self.follow(block.needs)
        if block.ends_others:
            self.end_others()
        if block.kind == "text":
            self.sees(block)
        elif block.kind == "sh" and block.about == "other terminal":
            self._other_terminal(block.text)
        elif block.kind == "sh":
            assert not block.about, f"line {block.line}: `sh {block.about}`?"
            self.shown = self._type(block)
        else:
            assert block.about, f"line {block.line}: a {block.kind} block without the name of its file"
            path = self.folder / block.about
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)

    def _type(self, block: Block) -> str:
        script = f"set -e -o pipefail\n[ ! -e {self._exports} ] || . {self._exports}\n{block.text}\nexport -p > {self._exports}\n"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=BLOCK_S,
        )  # fmt: skip
        assert done.returncode == 0, (
            f"line {block.line}: exit code {done.returncode}\n{block.text}\n{done.stdout}\n{self.logs()}"
        )
        return done.stdout

    def _other_terminal(self, text: str) -> None:
        log = self.folder.parent / f"terminal-{len(self._others)}.log"
        script = f"[ ! -e {self._exports} ] || . {self._exports}\n{text}"
        with log.open("wb") as output:
            child = subprocess.Popen(
                ["bash", "-c", script], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._others.append((child, log))
        deadline = time.monotonic() + BLOCK_S
        while "worker " not in log.read_text() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)

    def sees(self, block: Block) -> None:
        """Wait until what the page shows is shown, by the last block or by the other terminals."""
        deadline = time.monotonic() + SEEN_S
        while True:
            texts = [self.shown, *(log.read_text(errors="replace") for _, log in self._others)]
            missing = [shows(block.text, text) for text in texts]
            if not all(missing):
                return
            assert time.monotonic() < deadline, f"line {block.line}: {missing} is not shown\n" + "\n----\n".join(texts)
            time.sleep(0.1)

    def logs(self) -> str:
        """What the other terminals show."""
        return "\n----\n".join(log.read_text(errors="replace") for _, log in self._others)

    def end_others(self) -> None:
        """Press Ctrl-C in every other terminal."""
        for child, _ in reversed(self._others):
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGINT)
        for child, _ in self._others:
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        self._others.clear()

    def end(self) -> None:
        """End what still runs, and stop the private server."""
        self.end_others()
        subprocess.run(
            ["zwheel", "server", "stop"], cwd=self.folder, env=self.environment, capture_output=True, check=False,
            timeout=END_S,
        )  # fmt: skip
        left = [int(path.read_text()) for path in self.folder.parent.rglob("redis.pid")]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, "the page left a server running"


@pytest.fixture
def reader() -> Iterator[Reader]:
    """A reader, with a path short enough for a socket."""
    place = Path(tempfile.mkdtemp(prefix="zw-", dir="/tmp"))
    found = Reader(place)
    try:
        yield found
    finally:
        try:
            found.end()
        finally:
            shutil.rmtree(place, ignore_errors=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_page_can_be_followed_line_by_line(page: Path, reader: Reader) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        reader.follow(block)


def test_what_is_not_followed_is_little_and_says_why() -> None:
    found = {
        f"{page.relative_to(ROOT)}:{block.line}": block.not_followed
        for page in pages()
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.not_followed and block.not_followed != "only to be looked at"
    }
    assert len(found) <= 12, found
    assert all(len(reason) > 10 for reason in found.values())


def test_a_reader_notices_what_is_not_as_the_page_says(reader: Reader) -> None:
    page = "```sh\necho one; echo three\n```\n```text\none\nth...e\n```\n```sh\nfalse\n```\n"
    typed, seen, wrong = blocks(page)
    reader.follow(typed)
    reader.follow(seen)
    with pytest.raises(AssertionError, match="exit code 1"):
        reader.follow(wrong)
    assert shows("one\ntwo\n", "one\nthree\n") == "two"
    assert shows("three\none\n", "one\nthree\n") == "one"
