"""The directory of the embedded server: whose it is, where the socket goes, who wrote the data, who holds which lock.

start.lock     held while somebody starts, stops or resets the server: several at once end with one server
server.lock    held by the server itself as long as it lives, so that its data never has two servers
server.json    who wrote the data (family, version) and where its socket is
redis.sock     the socket; in a shorter place when the path is too long for one
redis-data/    the append-only file; server.log is beside it

The directory may have come with a cloned or copied project. So nothing in it names a program, no link in it is followed,
and a socket elsewhere is believed only in the one place that we would have chosen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from zwheel.embedded.binary import ServerBinary, Writer
from zwheel.embedded.trust import distrust
from zwheel.errors import EmbeddedServerError

DATA = "redis-data"
LOCK_S = 60.0
"""How long to wait for another process that starts or stops the server."""
POLL_S = 0.005
SOCKET_PATH_LIMIT = 107 if sys.platform == "linux" else 103
"""In bytes; one more and the system refuses the socket."""
#: The longest stamp that is read, bytes.
_STAMP_BYTES = 65_536
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}", re.ASCII)
_LOCKS = ("start.lock", "server.lock")
#: With less room than this the reason of a failure is a full disk, bytes.
_LITTLE = 262_144
_OWN_FILES = ("server.json", "server.log", "server.log.1", "redis.pid", "redis.sock")


def real(home: Path) -> Path:
    """The one name of a home directory, `~` and the links on the way to it resolved: the socket's place depends on it.

    Raises: EmbeddedServerError when the directory itself is a link.
    """
    home = home.expanduser()
    if home.is_symlink():
        raise EmbeddedServerError(f"{home} is a link: name the directory itself, by ZWHEEL_HOME")
    return home.resolve()


def prepare(home: Path) -> None:
    """Make the home directory, mode 0700, or check the one that is there.

    Raises: EmbeddedServerError when it cannot be made or is not private.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(home.iterdir()):
            check(home)
            home.chmod(0o700)
            (home / ".gitignore").write_text("*\n")
    except (FileExistsError, NotADirectoryError):
        raise EmbeddedServerError(f"{home} is not a directory") from None
    except OSError as error:
        raise EmbeddedServerError(f"{home} cannot be used: {error.strerror}") from error
    check(home)


def check(home: Path) -> None:
    """Make sure that the directory is ours and that nobody else can put a socket or a stamp there.

    Raises: EmbeddedServerError with the cure.
    """
    if not home.is_dir():
        raise EmbeddedServerError(f"{home} is not a directory")
    if not hasattr(os, "getuid"):
        return
    found = home.stat()
    if found.st_uid != os.getuid():
        raise EmbeddedServerError(f"{home} belongs to another user: set ZWHEEL_HOME to a directory of your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and any(home.iterdir()):
        raise EmbeddedServerError(f"others may write to {home}, so it cannot hold a private server: chmod 700 {home}")


def check_inside(home: Path) -> None:
    """Make sure that what a server is about to write lies in the home: neither it nor Redis may follow a link out of it.

    Raises: EmbeddedServerError with the cure.
    """
    found = [home / name for name in (*_OWN_FILES, *_LOCKS, DATA)]
    data = home / DATA
    if data.is_dir() and not data.is_symlink():
        for folder, folders, files in os.walk(data):
            found += [Path(folder) / name for name in (*folders, *files)]
    for path in found:
        try:
            about = path.lstat()
        except FileNotFoundError:
            continue
        reason = "it is a link" if stat.S_ISLNK(about.st_mode) else distrust(about)
        if reason is not None:
            raise EmbeddedServerError(f"{path} cannot be a private server's file, since {reason}: remove it")


def is_full(home: Path) -> bool:
    """Whether the disk of a directory has next to no room left."""
    try:
        return shutil.disk_usage(home).free < _LITTLE
    except OSError:
        return False


def clear(home: Path) -> bool:
    """Delete the server's data and files, and nothing else that may lie there; False when there was nothing.

    Raises: EmbeddedServerError when something cannot be deleted.
    """
    data = home / DATA
    existed = data.is_dir() or (home / "server.json").exists()
    try:
        if data.is_dir() and not data.is_symlink():
            if (data / "appendonlydir").exists():
                shutil.rmtree(data / "appendonlydir")
            for leftover in (*data.glob("*.rdb"), *data.glob("*.aof")):
                leftover.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                data.rmdir()
        for name in _OWN_FILES:
            (home / name).unlink(missing_ok=True)
    except OSError as error:
        raise EmbeddedServerError(f"{error.filename} cannot be deleted: {error.strerror}") from error
    return existed


def socket_path(home: Path) -> Path:
    """Where the socket goes: into the home, or where the path is short enough for the system."""
    path = home / "redis.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    name = _short_name(home)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and _is_private(Path(runtime)):
        path = Path(runtime) / name
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
            return path
    directory = Path(f"/tmp/zwheel-{os.getuid()}")  # noqa: S108  made with 0700 and checked
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if not _is_private(directory):
        raise EmbeddedServerError(
            f"{home} is too long for a socket, and {directory} is not yours alone: set ZWHEEL_HOME to a shorter path"
        )
    return directory / name


def _short_name(home: Path) -> str:
    """What a home's socket is called in a shorter place."""
    return f"zwheel-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}.sock"


def _is_private(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def recorded_socket(home: Path) -> Path:
    """Where the last server was told to listen: a later process may see another XDG_RUNTIME_DIR."""
    own = home / "redis.sock"
    try:
        recorded = Path(json.loads(_read_stamp_file(home))["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return own
    elsewhere = recorded.name == _short_name(home) and _is_private(recorded.parent)
    return recorded if elsewhere else own


def is_own_socket(path: Path) -> bool:
    """Whether a path is a socket of this user, and no link to one."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and distrust(found) is None


def read_stamp(home: Path) -> Writer | None:
    """The server that wrote the data; None when there is no data."""
    has_data = (home / DATA / "appendonlydir").exists()
    try:
        stamp = json.loads(_read_stamp_file(home))
        wrote = Writer(family=str(stamp["family"]), version=str(stamp["version"]))
        known = wrote.family in ("valkey", "redis") and _VERSION.fullmatch(wrote.version) is not None
    except FileNotFoundError:
        wrote, known = None, not has_data
    except (OSError, ValueError, KeyError, TypeError):
        wrote, known = None, False
    if not known:
        raise EmbeddedServerError(
            f"{home}/server.json does not say which server wrote the jobs in {home}, so none may open them: "
            "put that file back, or delete the jobs with: zwheel server reset"
        )
    return wrote if has_data else None


def _read_stamp_file(home: Path) -> bytes:
    descriptor = os.open(home / "server.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_STAMP_BYTES)


def write_stamp(home: Path, binary: ServerBinary, path: Path) -> None:
    """Say which server is about to write the data. Written before its start: after a crash in between others are refused."""
    stamp = {"family": binary.family, "version": binary.version, "socket": str(path)}
    restore_stamp(home, (json.dumps(stamp, indent=2) + "\n").encode())


def restore_stamp(home: Path, content: bytes | None) -> None:
    """Put `server.json` into place in one step; None: take it away."""
    target = home / "server.json"
    if content is None:
        target.unlink(missing_ok=True)
        return
    new = home / "server.json.new"
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(content)
        new.replace(target)
    except OSError:
        new.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the start lock; wait for it up to a minute."""
    try:
        held = os.open(home / "start.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise EmbeddedServerError(f"{home} cannot be used: {error.strerror}") from error
    try:
        deadline = time.monotonic() + LOCK_S
        while not try_lock(held):
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"another process has been starting or stopping the server in {home} for long"
                )
            time.sleep(POLL_S)
        yield
    finally:
        os.close(held)


def server_lives(home: Path) -> bool:
    """Whether a server process holds the data, even one whose socket is gone or that is stuck."""
    try:
        probe = os.open(home / "server.lock", os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(probe)
    finally:
        os.close(probe)


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file if it is free. It ends when the last process that holds the file closes it."""
    try:
        import fcntl
    except ImportError:
        raise EmbeddedServerError(
            "the embedded server runs on Linux and macOS only: set ZWHEEL_URL to a server that runs"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise EmbeddedServerError(
            f"files cannot be locked there ({error.strerror}): set ZWHEEL_HOME to a directory on a local disk"
        ) from error
    return True
