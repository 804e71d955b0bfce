"""Commands where little is as usual: closed streams, disks that are full or read-only, modules with borrowed names."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from zwheel import embedded
from zwheel.cli.exits import ExitCode

ZWHEEL = [sys.executable, "-m", "zwheel.cli"]


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory with a path short enough for sockets; a private server in `home` ends with the test."""
    with tempfile.TemporaryDirectory(prefix="zw-", dir="/tmp") as directory:
        yield Path(directory)
        embedded.stop(Path(directory) / "home")


def environment(place: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("ZWHEEL_URL", "REDIS_URL", "ZWHEEL_APP")}
    return {**kept, "ZWHEEL_HOME": str(place / "home"), "HOME": str(place), **more}


def shell(place: Path, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a line of sh in which $Z is zwheel."""
    words = {"Z": f"{sys.executable} -P -m zwheel.cli", **more}
    return subprocess.run(
        ["sh", "-c", line], cwd=place, env=environment(place, **words), capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = done.stderr.splitlines()
    assert line.startswith("zwheel: ")
    assert "unexpected" not in line
    return line


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_server_starts_with_closed_streams(place: Path, closed: str) -> None:
    assert shell(place, f"$Z server start {closed}").returncode == ExitCode.OK
    assert embedded.status(place / "home") is not None


def test_two_projects_of_one_user_share_no_jobs_and_no_server(place: Path) -> None:
    def within(project: str, line: str) -> subprocess.CompletedProcess[str]:
        (place / project / "deep").mkdir(parents=True, exist_ok=True)
        (place / project / "pyproject.toml").touch()
        return shell(place, f"cd {project} && {line}", ZWHEEL_HOME="", XDG_STATE_HOME=str(place))

    try:
        assert f"for the project {place}/one" in within("one", "$Z server start").stdout
        assert f"for the project {place}/two" in within("two", "$Z queue ls").stderr
        within("two", "$Z server start && $Z enqueue app.remind --id two")
        assert within("one", "$Z job show two").returncode == ExitCode.NOT_FOUND
        assert within("two", "cd deep && $Z job show two").returncode == ExitCode.OK
        assert within("two", "$Z server reset --yes").returncode == ExitCode.OK
        shown = within("one", "$Z server status")
        assert (shown.returncode, f"project  {place}/one" in shown.stdout) == (ExitCode.OK, True), shown.stdout
    finally:
        within("one", "$Z server stop")
        within("two", "$Z server stop")


def test_a_terminal_that_closes_ends_the_worker_and_the_server_that_it_shows(place: Path) -> None:
    (place / "app.py").write_text("from zwheel import Wheel\nwheel = Wheel()\n\n@wheel.task\ndef work(): ...\n")
    ours, theirs = os.openpty()

    def on_the_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run below nohup themselves
        os.login_tty(theirs)

    child = subprocess.Popen(
        [*ZWHEEL, "dev", "app:wheel"], cwd=place, env=environment(place), preexec_fn=on_the_terminal,
        pass_fds=(theirs,),
    )  # fmt: skip
    try:
        os.close(theirs)
        seen = b""
        while b"task, queues" not in seen:
            seen += os.read(ours, 4096)
        os.close(ours)
        assert child.wait(30) == ExitCode.OK
        assert embedded.status(place / "home") is None, "the server that it started is stopped"
    finally:
        child.kill()
        child.wait()


def test_a_worker_without_stdin_says_what_it_lacks(place: Path) -> None:
    (place / "app.py").write_text("from zwheel import Wheel\nwheel = Wheel()\n\n@wheel.task\ndef work(): ...\n")
    done = shell(place, "$Z worker app:wheel <&-")
    assert done.returncode == ExitCode.UNREACHABLE
    assert "no Redis is named" in sentence(done)


def test_what_is_to_be_read_from_a_closed_stdin_is_not_taken_for_empty(place: Path) -> None:
    done = shell(place, "$Z schedule import - <&-")
    assert done.returncode == ExitCode.UNEXPECTED
    assert "reading or writing failed" in sentence(done)


def test_dev_says_that_it_uses_the_private_server_in_production_too(place: Path) -> None:
    done = shell(place, "ZWHEEL_ENV=production $Z dev nothing:wheel --no-reload")
    assert "ZWHEEL_ENV is production: dev uses the private server all the same" in done.stderr


def test_output_that_cannot_be_written_is_said_in_a_sentence(place: Path) -> None:
    done = shell(place, "$Z server start > /dev/full")
    assert done.returncode == ExitCode.UNEXPECTED
    assert "No space left" in sentence(done)


def in_own_mounts(place: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line where it may mount; skip where nobody may."""
    tried = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs -o size=64k tmpfs {place}"]
    if shutil.which("unshare") is None or subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("nobody may mount here")
    return shell(place, f"exec unshare --mount sh -c '{line}'")


@pytest.mark.parametrize("room", [0, 4, 8, 16])
def test_a_full_disk_is_said_in_a_sentence(place: Path, room: int) -> None:
    done = in_own_mounts(
        place,
        f"mount -t tmpfs -o size=64k tmpfs {place}; mkdir -m 700 {place}/home; "
        f"dd if=/dev/zero of={place}/fill bs=1k count={64 - room} 2> /dev/null; $Z server start",
    )
    assert done.returncode == ExitCode.UNREACHABLE
    assert "No space left" in sentence(done) or "the disk is full" in sentence(done)


@pytest.mark.parametrize("make", ["", "mkdir -m 700 {home};", "mkdir -m 700 {home}; touch {home}/start.lock;"])
def test_a_read_only_disk_is_said_in_a_sentence(place: Path, make: str) -> None:
    before = f"mount -t tmpfs tmpfs {place}; {make.format(home=place / 'home')} mount -o remount,ro {place};"
    for command in ("server start", "--embedded queue ls"):
        done = in_own_mounts(place, f"{before} cd /; $Z {command}")
        assert done.returncode == ExitCode.UNREACHABLE
        assert "Read-only file system" in sentence(done)


BORROWED = ("secrets", "queue", "socket", "json", "signal", "tempfile", "multiprocessing", "ssl")
APP = """
import sys
from zwheel import Wheel
import helper
wheel = Wheel()
@wheel.task(name="apart", process=True)
def apart() -> None: ...
print("loaded with", helper.WORD, flush=True)
"""


@pytest.mark.parametrize(
    "words", [["worker", "-p", "2"], ["worker"], ["dev", "--no-reload"]], ids=["two processes", "one", "dev"]
)
def test_a_module_beside_the_app_does_not_take_the_place_of_one_of_pythons_own(place: Path, words: list[str]) -> None:
    for name in BORROWED:
        (place / f"{name}.py").write_text(f"open({str(place / 'it-ran')!r}, 'a').write({name!r})\n")
    (place / "app.py").write_text(APP)
    (place / "helper.py").write_text("WORD = 'its neighbour'\n")
    loaded = 2 if "-p" in words else 1
    with subprocess.Popen(
        [*ZWHEEL, *words, "app:wheel"], cwd=place, env=environment(place, ZWHEEL_URL="redis://127.0.0.1:1"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        try:
            seen: list[str] = []
            while sum("waiting for Redis" in line for line in seen) < loaded:
                line = child.stdout.readline()
                assert line, "".join(seen)
                seen.append(line)
        finally:
            child.send_signal(signal.SIGTERM)
    assert "loaded with its neighbour\n" in seen
    assert not (place / "it-ran").exists(), (place / "it-ran").read_text()
