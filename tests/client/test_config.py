"""Which setting wins, what is refused, and which Redis that means."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer
from zwheel import embedded
from zwheel.broker.connect import connect_sync, translate
from zwheel.config import Settings, load_settings, resolve_url
from zwheel.embedded import home as server_home
from zwheel.errors import BrokerUnavailable, ConfigError, InvalidName

FILE = """
[zwheel]
url = "redis://file:1/0"
namespace = "filed"
app = "file:wheel"
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home for a private server, stopped afterwards."""
    with tempfile.TemporaryDirectory(prefix="zw-", dir="/tmp") as directory:
        path = Path(directory) / "home"
        yield path
        embedded.stop(path)


def load(cwd: Path, env: dict[str, str] | None = None, **given: str) -> Settings:
    return load_settings(cwd=cwd, env={"HOME": "/home/ann"} | (env or {}), **given)


def of(project: Path) -> str:
    """What the home of a project is called."""
    return f"{project.name}-{hashlib.sha256(bytes(project)).hexdigest()[:12]}"


def test_nothing_is_set(tmp_path: Path) -> None:
    project = tmp_path / "shop"
    project.mkdir()
    assert load(project) == Settings(
        url=None,
        namespace="zw",
        app=None,
        home=Path("/home/ann/.local/state/zwheel") / of(project),
        project=project,
        source="embedded",
        production=False,
    )


def test_each_place_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    (tmp_path / "zwheel.toml").write_text(FILE)
    env: dict[str, str] = {}
    seen = []
    for name in ("", "REDIS_URL", "ZWHEEL_URL"):
        if name:
            env[name] = f"redis://{name.lower().replace('_', '-')}"
        found = load(tmp_path, env)
        seen.append((found.source, found.url))
    given = load(tmp_path, env, url="unix:///given")
    assert [*seen, (given.source, given.url)] == [
        ("zwheel.toml", "redis://file:1/0"),
        ("REDIS_URL", "redis://redis-url"),
        ("ZWHEEL_URL", "redis://zwheel-url"),
        ("--url", "unix:///given"),
    ]


def test_namespace_and_app_come_from_the_same_places(tmp_path: Path) -> None:
    (tmp_path / "zwheel.toml").write_text(FILE)
    env = {"ZWHEEL_NAMESPACE": "env", "ZWHEEL_APP": "env:wheel"}
    assert (load(tmp_path).namespace, load(tmp_path).app) == ("filed", "file:wheel")
    assert (load(tmp_path, env).namespace, load(tmp_path, env).app) == ("env", "env:wheel")
    given = load(tmp_path, env, namespace="given", app="given:wheel")
    assert (given.namespace, given.app) == ("given", "given:wheel")


def test_the_current_directory_and_environment_are_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zwheel.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZWHEEL_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", "redis://environment")
    assert load_settings().url == "redis://environment"
    assert load_settings().app == "file:wheel"


@pytest.mark.parametrize(
    ("env", "file", "expected"),
    [
        ({"ZWHEEL_HOME": "/given"}, '[zwheel]\nhome = "filed"', "/given"),
        ({"ZWHEEL_HOME": "~/mine"}, "", "/home/ann/mine"),
        ({"ZWHEEL_HOME": "relative"}, "", "CWD/relative"),
        ({}, '[zwheel]\nhome = "filed"', "CWD/filed"),
        ({"XDG_STATE_HOME": "/state"}, "", "/state/zwheel/OF"),
        ({"XDG_STATE_HOME": "relative"}, "", "/home/ann/.local/state/zwheel/OF"),
    ],
)
def test_the_home_of_the_private_server(tmp_path: Path, env: dict[str, str], file: str, expected: str) -> None:
    project = tmp_path / "shop"
    project.mkdir()
    (project / "zwheel.toml").write_text(file)
    assert load(project, env).home == Path(expected.replace("CWD", str(project)).replace("OF", of(project)))


def test_two_projects_of_one_user_have_a_server_each(tmp_path: Path) -> None:
    for name in ("one/app", "two/app"):
        (tmp_path / name).mkdir(parents=True)
    one, two = load(tmp_path / "one/app"), load(tmp_path / "two/app")
    assert (one.project, two.project) == (tmp_path / "one/app", tmp_path / "two/app")
    assert one.home != two.home


@pytest.mark.parametrize("mark", ["zwheel.toml", "pyproject.toml", ".git"])
def test_a_folder_of_a_project_has_the_server_of_the_project(tmp_path: Path, mark: str) -> None:
    folder = tmp_path / "shop/deep/deeper"
    folder.mkdir(parents=True)
    (tmp_path / "shop" / mark).touch()
    (tmp_path / "link").symlink_to(folder)
    found = load(tmp_path / "shop")
    assert found.project == tmp_path / "shop"
    assert load(folder).home == found.home
    assert load(tmp_path / "link").home == found.home, "a directory is one, by whatever name"


def test_a_users_own_directory_is_no_project_of_all_that_lies_below(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()  # As where the settings of programs are kept in git.
    (tmp_path / "shop").mkdir()
    assert load(tmp_path / "shop", {"HOME": str(tmp_path)}).project == tmp_path / "shop"


def test_the_socket_of_a_project_lies_in_its_home_whatever_the_project_is_called(tmp_path: Path) -> None:
    project = tmp_path / ("über and under " * 10)
    project.mkdir()
    home = load(project).home
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,40}", home.name)
    assert server_home.socket_path(home) == home / "redis.sock"


def test_a_directory_of_the_project_is_the_home_when_it_exists(tmp_path: Path) -> None:
    (tmp_path / ".zwheel").mkdir()
    found = load(tmp_path, {"XDG_STATE_HOME": "/state"})
    assert (found.home, found.project) == (tmp_path / ".zwheel", tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[zwheel]\nurk = "x"', "unknown setting 'urk': it takes url, namespace, app, home"),
        ('url = "redis://h"', "outside of the table"),
        ("[zwheel]\n[other]", "outside of the table"),
        ("zwheel = 3", "must be a table"),
        ("[zwheel]\nurl = 3", "url must be a text"),
        ('[zwheel]\napp = ""', "app must be a text that is not empty"),
        ("[zwheel", "not valid TOML"),
        ('[zwheel]\nurl = "http://u:hidden@h"', "zwheel.toml: the Redis URL http://u:***@h is not valid"),
        ('[zwheel]\nnamespace = "a b"', "zwheel.toml: 'a b' is not a valid namespace"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "zwheel.toml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(complaint)) as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "zwheel.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "zwheel.toml").rmdir()
    (tmp_path / "zwheel.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["ZWHEEL_URL", "REDIS_URL"])
@pytest.mark.parametrize("value", ["", " ", "localhost"])
def test_a_url_that_is_set_and_bad_is_never_passed_over(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "zwheel.toml").write_text(FILE)
    with pytest.raises(ConfigError, match=f"^{name}"):
        load(tmp_path, {name: value})


def test_bad_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^ZWHEEL_NAMESPACE"):
        load(tmp_path, {"ZWHEEL_NAMESPACE": "{x}"})
    with pytest.raises(InvalidName):
        load(tmp_path, namespace="{x}")


def test_a_password_does_not_show_in_the_settings(tmp_path: Path) -> None:
    assert "hidden" not in repr(load(tmp_path, url="redis://:hidden@h"))


def test_a_url_is_used_without_being_tried_and_announced_without_its_password(tmp_path: Path) -> None:
    said: list[str] = []
    env = {"REDIS_URL": "redis://:hidden@127.0.0.1:1"}
    assert resolve_url(load(tmp_path, env), start_embedded=True, say=said.append) == env["REDIS_URL"]
    assert said == ["zwheel: using redis://:***@127.0.0.1:1/0 (REDIS_URL)"]
    said.clear()
    resolve_url(load(tmp_path, {"ZWHEEL_URL": "redis://h"}), start_embedded=True, say=said.append)
    resolve_url(load(tmp_path, url="redis://h"), start_embedded=False, say=said.append)
    assert said == []
    resolve_url(load(tmp_path, url="memory://"), start_embedded=False, say=said.append)
    assert said[0].startswith("zwheel: IN-MEMORY")


def test_a_url_that_does_not_answer_does_not_fall_through_to_the_private_server(tmp_path: Path, home: Path) -> None:
    embedded.start(home)
    settings = load(tmp_path, {"ZWHEEL_HOME": str(home), "REDIS_URL": f"unix://{tmp_path}/none"})
    url = resolve_url(settings, start_embedded=True)
    with connect_sync(url) as client, pytest.raises(Exception, match="No such file") as raised:
        client.ping()
    assert isinstance(translate(raised.value, url), BrokerUnavailable)


def test_without_a_url_the_private_server_is_joined_or_started(tmp_path: Path, home: Path) -> None:
    settings = load(tmp_path, {"ZWHEEL_HOME": str(home)})
    with pytest.raises(BrokerUnavailable, match=r"set ZWHEEL_URL .* zwheel server start"):
        resolve_url(settings, start_embedded=False)
    assert not home.exists()
    said: list[str] = []
    url = resolve_url(settings, start_embedded=True, say=said.append)
    assert re.match(rf"zwheel: started (Redis|Valkey) \S+ with its data in {home}, for this user on this", said[0])
    assert resolve_url(settings, start_embedded=False, say=said.append) == url
    assert len(said) == 1, "one that runs already is no news"
    with connect_sync(url) as client:
        assert client.ping()


def test_production_never_uses_the_private_server(tmp_path: Path, home: Path) -> None:
    embedded.start(home)
    settings = load(tmp_path, {"ZWHEEL_HOME": str(home), "ZWHEEL_ENV": "Production"})
    for start in (True, False):
        with pytest.raises(BrokerUnavailable, match="ZWHEEL_ENV is production"):
            resolve_url(settings, start_embedded=start)


def test_a_url_given_in_production_is_used(tmp_path: Path, fresh: RedisServer) -> None:
    settings = load(tmp_path, {"ZWHEEL_ENV": "production", "ZWHEEL_URL": fresh.url})
    assert resolve_url(settings, start_embedded=False) == fresh.url


def test_a_file_that_is_a_link_to_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "zwheel.toml").symlink_to(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match=r"zwheel\.toml is a link to .*gone\.toml, which is not there"):
        load(tmp_path)
