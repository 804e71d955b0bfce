"""Where the settings come from, and which Redis that means.

The URL: what the caller gives (`--url`), else ZWHEEL_URL, else REDIS_URL, else `url` in `zwheel.toml` of the current
directory. A URL that is set and does not answer is an error, never a reason to try the next. Only with none at all does the
private server of the project stand in: it is joined when it runs, and started when the caller says so.

A project is the nearest directory, from the current one up, with zwheel.toml, pyproject.toml or .git; without one, the
current directory. Each has a server of its own, so that no worker runs another project's jobs. Its data lies outside of
the project, where nothing that comes with a clone can lie; only `.zwheel` in the current directory goes before that.

Also read: ZWHEEL_NAMESPACE, ZWHEEL_APP, ZWHEEL_HOME, and ZWHEEL_ENV=production, which rules the private server out for all but
`zwheel server` and `zwheel dev`.

    [zwheel]                     # zwheel.toml; no other keys are taken
    url = "redis://localhost/0"
    namespace = "zw"
    app = "shop.jobs:wheel"
    home = ".zwheel"             # relative to this file

The file names the code that a worker runs, so it has to be this user's own or root's, and nobody else may write to it.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zwheel.broker.address import MEMORY_BANNER, mask_text, mask_url, parse_url
from zwheel.embedded.trust import distrust
from zwheel.errors import BrokerUnavailable, ConfigError, InvalidName
from zwheel.keys import check_name

FILE_NAME = "zwheel.toml"
DEFAULT_NAMESPACE = "zw"
EMBEDDED = "embedded"
_KEYS = ("url", "namespace", "app", "home")
#: What the directory of a project has.
_MARKS = (FILE_NAME, "pyproject.toml", ".git")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process, each from the first place that had it."""

    url: str | None = field(default=None, repr=False)
    """The Redis URL, checked; None: no place had one."""
    namespace: str = DEFAULT_NAMESPACE
    """The first part of every key."""
    app: str | None = None
    """The application as `module:attribute`; None when not set."""
    home: Path
    """The directory of the private server; it need not exist."""
    project: Path | None = None
    """The directory whose private server it is; None when `home` is named in a setting."""
    source: str = EMBEDDED
    """Where the URL came from: `--url`, `ZWHEEL_URL`, `REDIS_URL`, `zwheel.toml`, or `embedded` for no URL."""
    production: bool = False
    """ZWHEEL_ENV=production: nothing joins or starts the private server but a command that asks for it by name."""

    def of_project(self) -> str:
        """Say whose the home is, behind its name: ` for the project /srv/shop`; nothing when a setting names the home."""
        return "" if self.project is None else f" for the project {self.project}"


def load_settings(
    *,
    url: str | None = None,
    namespace: str | None = None,
    app: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings; an argument that is given wins over the environment, and that over the file.

    Args:
        cwd: The directory of `zwheel.toml` and `.zwheel`; None: the current one.
        env: The environment; None: this process's.

    Raises: ConfigError in one sentence that names the place; InvalidName for a bad namespace in the call.
    """
    cwd = Path.cwd() if cwd is None else cwd
    env = os.environ if env is None else env
    if namespace is not None:
        check_name(namespace, "namespace")
    file = _read_file(cwd / FILE_NAME)
    found_url, source = _find_url(url, env, file)
    home, project = _home(env, file, cwd)
    return Settings(
        url=found_url,
        namespace=namespace or _namespace(env, file),
        app=app or env.get("ZWHEEL_APP") or file.get("app"),
        home=home,
        project=project,
        source=source,
        production=env.get("ZWHEEL_ENV", "").strip().lower() == "production",
    )


def resolve_url(settings: Settings, *, start_embedded: bool, say: Callable[[str], None] | None = None) -> str:
    """Give the URL to use. Without one: join the private server, or start it when `start_embedded` is set.

    Args:
        say: Called with one line where the server taken may surprise: a new private one, one in memory, that of REDIS_URL.

    Raises: BrokerUnavailable, with the choices, when there is no URL and no private server to use;
        EmbeddedServerError when there is one and it does not work.
    """
    tell = say or _silent
    if settings.url is not None:
        if settings.url.startswith("memory:"):
            tell(f"zwheel: {MEMORY_BANNER}")
        elif settings.source == "REDIS_URL":
            tell(f"zwheel: using {mask_url(settings.url)} (REDIS_URL)")
        return settings.url
    if settings.production:
        raise BrokerUnavailable("ZWHEEL_ENV is production and no Redis is named: set ZWHEEL_URL")
    from zwheel import embedded

    server = embedded.start(settings.home) if start_embedded else embedded.status(settings.home)
    if server is None:
        raise BrokerUnavailable(
            f"no Redis is named, and no private server runs in {settings.home}{settings.of_project()}: set ZWHEEL_URL to one that runs, "
            "or start a private one with: zwheel server start"
        )
    if server.started:
        tell(
            f"zwheel: started {server} with its data in {server.home}{settings.of_project()}, for this user on this "
            "machine only; set ZWHEEL_URL for anything shared"
        )
    return server.url


def _silent(line: str) -> None:
    """Say nothing."""


def _read_file(path: Path) -> dict[str, str]:
    try:
        _check_owner(path)
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"{path} is a link to {os.readlink(path)}, which is not there") from None
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    others = [name for name in document if name != "zwheel"]
    if others:
        raise ConfigError(
            f"{path} has {mask_text(repr(others[0]))} outside of the table [zwheel]: put all settings into it"
        )
    table = document.get("zwheel", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: zwheel must be a table, [zwheel]")
    for name, value in table.items():
        if name not in _KEYS:
            raise ConfigError(f"{path} has the unknown setting {mask_text(repr(name))}: it takes {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{path}: {name} must be a text that is not empty")
    return table


def _check_owner(path: Path) -> None:
    """Refuse a file that somebody else could have written: it names the code that a worker runs.

    A link counts for its owner and for what it leads to. Raises: ConfigError, OSError.
    """
    reason = distrust(path.lstat()) or distrust(path.stat())
    if reason is not None:
        raise ConfigError(
            f"{path} is not used, since {reason}: make it your own (chown, chmod go-w), or remove it and set ZWHEEL_URL, "
            "ZWHEEL_APP and ZWHEEL_NAMESPACE"
        )


def _find_url(url: str | None, env: Mapping[str, str], file: Mapping[str, str]) -> tuple[str | None, str]:
    places = (
        ("--url", url),
        ("ZWHEEL_URL", env.get("ZWHEEL_URL")),
        ("REDIS_URL", env.get("REDIS_URL")),
        (FILE_NAME, file.get("url")),
    )
    for source, found in places:
        if found is None:
            continue
        if not found.strip():
            raise ConfigError(f"{source} is set but empty: give it a Redis URL, or unset it")
        try:
            parse_url(found)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        return found.strip(), source
    return None, EMBEDDED


def _namespace(env: Mapping[str, str], file: Mapping[str, str]) -> str:
    for source, found in (("ZWHEEL_NAMESPACE", env.get("ZWHEEL_NAMESPACE")), (FILE_NAME, file.get("namespace"))):
        if found:
            try:
                return check_name(found, "namespace")
            except InvalidName as error:
                raise ConfigError(f"{source}: {error}") from None
    return DEFAULT_NAMESPACE


def _home(env: Mapping[str, str], file: Mapping[str, str], cwd: Path) -> tuple[Path, Path | None]:
    """$ZWHEEL_HOME, else `home` of the file, else ./.zwheel if it exists, else the project's in the user's state.

    Returns the home, and the project that it belongs to unless a setting names it.
    """
    named = env.get("ZWHEEL_HOME")
    if named:
        home = cwd / _expanded(named, env)
        # A person who names a link means where it leads; a link that merely lies in the directory is not followed.
        return home.resolve() if home.is_symlink() else home, None
    if file.get("home"):
        return cwd / _expanded(file["home"], env), None
    if (cwd / ".zwheel").is_dir():
        return cwd / ".zwheel", cwd
    state = env.get("XDG_STATE_HOME", "")
    # The specification of these directories says that a relative one is to be ignored.
    homes = (Path(state) if os.path.isabs(state) else _expanded("~/.local/state", env)) / "zwheel"
    project = _project(cwd.resolve(), env.get("HOME"))
    # Short, since the path of a socket has to be.
    name = re.sub(r"[^A-Za-z0-9._]+", "-", project.name)[:24]
    return homes / f"{name}-{hashlib.sha256(bytes(project)).hexdigest()[:12]}", project


def _project(here: Path, user: str | None) -> Path:
    """The nearest directory, from here up, that is marked as a project; without one, here.

    A user's own directory is none for what lies below it: many keep it in git.
    """
    own = Path(user).resolve() if user else None
    for folder in (here, *here.parents):
        if folder == own:
            break
        if any(os.path.exists(folder / mark) for mark in _MARKS):
            return folder
    return here


def _expanded(path: str, env: Mapping[str, str]) -> Path:
    if path != "~" and not path.startswith("~/"):
        return Path(path)
    user = env.get("HOME")
    try:
        return (Path(user) if user else Path.home()) / path[2:]
    except RuntimeError:
        raise ConfigError("there is no home directory for the private server: set ZWHEEL_HOME or ZWHEEL_URL") from None
