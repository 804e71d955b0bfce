"""`zwheel schedule import`: a crontab arrives whole, and takes nothing from anybody."""

from __future__ import annotations

import getpass
import json
import shlex
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.schedules.crontab_shapes import PROGRAMS, SYSTEM_SHAPES, USER_SHAPES, USERS
from zwheel import SyncWheel
from zwheel.cli.output import Output
from zwheel.cli.schedule import crontab_source as crontab_source
from zwheel.payload.codec import DEFAULT
from zwheel.schedules.definition import Definition

from .conftest import Done, Shell

Write = Callable[[str], str]


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with users and programs that the tests know."""
    monkeypatch.setattr(crontab_source, "is_user", USERS.__contains__)
    monkeypatch.setattr(crontab_source, "is_program", PROGRAMS.__contains__)


@pytest.fixture
def shop(tmp_path: Path) -> Write:
    """Writes the crontab `shop` and gives its path."""

    def write(text: str) -> str:
        file = tmp_path / "shop"
        file.write_text(text, encoding="utf-8", newline="")
        return str(file)

    return write


def command_of(definition: Definition) -> str:
    _, kwargs, _ = DEFAULT.decode(definition.payload, context=definition.payload_context())
    assert kwargs["home"] is True
    return str(kwargs["line"])


def stored(url: str) -> dict[str, tuple[str, str]]:
    """The schedules: name -> command, owner."""
    with SyncWheel(url, namespace="zw") as wheel:
        return {info.name: (command_of(info.definition), info.owner) for info in wheel.schedules()}


def told(done: Done, code: int = 0) -> str:
    assert done.code == code, done.err
    return done.out + done.err


def test_a_crontab_is_carried_over_and_what_cannot_be_is_listed(shell: Shell, url: str, shop: Write) -> None:
    file = shop("MAILTO=ann\n0 9 * * * /opt/report\n@reboot /opt/once\n*/5 * * * * /opt/poll -q%in\n")
    dry = told(shell("schedule", "import", file, "--dry-run"), 5)
    assert "line 3: left out" in dry
    assert "2 lines carried over, 1 left out" in dry
    assert stored(url) == {}
    assert "2 added" in told(shell("schedule", "import", file, "--zone", "Europe/Berlin"), 5)
    with SyncWheel(url, namespace="zw") as wheel:
        assert [(i.name, i.owner, i.definition.tz) for i in wheel.schedules()] == [
            ("shop-poll", f"crontab:{file}", "Europe/Berlin"), ("shop-report", f"crontab:{file}", "Europe/Berlin"),
        ]  # fmt: skip


def test_every_ordinary_crontab_arrives_whole_and_takes_nothing_from_the_others(
    shell: Shell, url: str, tmp_path: Path
) -> None:
    assert len(USER_SHAPES) + len(SYSTEM_SHAPES) >= 42
    expected: list[str] = []
    shapes = {name: (text, commands) for name, (text, commands) in USER_SHAPES.items()}
    shapes |= {name: (text, [command for _, command in lines]) for name, (text, lines) in SYSTEM_SHAPES.items()}
    files = []
    for number, (text, commands) in enumerate(shapes.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = folder / "crontab"  # each is called the same
        file.write_text(text, encoding="utf-8", newline="")
        files.append(str(file))
        told(shell("schedule", "import", str(file)))
        expected += commands
    first = stored(url)
    assert sorted(command for command, _ in first.values()) == sorted(expected)
    for again in files[::7]:
        assert "0 added, 0 changed, 0 removed" in told(shell("schedule", "import", again))
    assert stored(url) == first


def test_stdin_has_no_users_and_belongs_to_who_gave_it(shell: Shell, url: str) -> None:
    done = shell.piped("schedule", "import", "-", "--prefix", "ann", stdin=b"0 1 * * * daemon --x\n0 1 * * * mail a\n")
    told(done)
    told(shell.piped("schedule", "import", "-", "--prefix", "bob", stdin=b"0 2 * * * /bin/bob-job\n"))
    told(shell.piped("schedule", "import", "-", stdin=b"0 2 * * * /bin/job\n"))
    whose = f"crontab:{getpass.getuser()}@{socket.gethostname()}"
    assert stored(url) == {
        "ann-daemon": ("daemon --x", f"{whose}:ann"), "ann-mail": ("mail a", f"{whose}:ann"),
        "bob-bob-job": ("/bin/bob-job", f"{whose}:bob"), "stdin-job": ("/bin/job", whose),
    }  # fmt: skip
    doubt = shell.piped("schedule", "import", "-", stdin=b"0 1 * * * root /opt/a\n")
    assert "--system" in told(doubt, 2)


def test_doubt_about_the_format_is_an_error_that_names_the_options(shell: Shell, url: str, shop: Write) -> None:
    file = shop("0 1 * * * backup /srv\n")
    error = told(shell("schedule", "import", file), 2)
    assert "'backup'" in error
    assert "--system" in error
    assert "--user" in error
    assert stored(url) == {}
    told(shell("schedule", "import", file, "--user"))
    assert stored(url)["shop-backup"][0] == "backup /srv"
    told(shell("schedule", "import", file, "--system", "--prefix", "other", "--owner", "me"))
    assert stored(url)["other-srv"] == ("/srv", "me")


@pytest.mark.parametrize(("answer", "command"), [(True, "/srv"), (False, "backup /srv")])
def test_on_a_terminal_doubt_is_asked_about(
    shell: Shell, url: str, shop: Write, monkeypatch: pytest.MonkeyPatch, answer: bool, command: str
) -> None:
    asked: list[str] = []

    def ask(_: Output, question: str) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(Output, "interactive", property(lambda self: True))
    monkeypatch.setattr(Output, "confirm", ask)
    told(shell("schedule", "import", shop("0 1 * * * backup /srv\n")))
    assert ["'backup'" in question for question in asked] == [True]
    assert [found for found, _ in stored(url).values()] == [command]


def test_the_places_of_cron_say_the_format(
    monkeypatch: pytest.MonkeyPatch, shell: Shell, url: str, shop: Write
) -> None:
    file = shop("0 1 * * * backup /srv\n0 1 * * * cd /srv && make\n")
    monkeypatch.setattr(crontab_source, "_SYSTEM_FILE", file)
    assert "line 2: left out: there is no user cd here" in told(shell("schedule", "import", file), 5)
    assert [command for command, _ in stored(url).values()] == ["/srv"]
    monkeypatch.setattr(crontab_source, "_SYSTEM_FILE", "/etc/crontab")
    monkeypatch.setattr(crontab_source, "_USER_FOLDERS", (f"{Path(file).parent}/",))
    told(shell("schedule", "import", file, "--yes"))
    assert sorted(command for command, _ in stored(url).values()) == ["backup /srv", "cd /srv && make"]


def test_removing_more_than_a_third_needs_a_yes_and_a_dry_run_shows_it(shell: Shell, url: str, shop: Write) -> None:
    file = shop("".join(f"0 {n} * * * /opt/job{n}\n" for n in range(6)))
    told(shell("schedule", "import", file))
    shop("".join(f"0 {n} * * * /opt/job{n}\n" for n in range(4)))
    assert "removed shop-job4\nremoved shop-job5\n" in told(shell("schedule", "import", file, "--dry-run"))
    assert len(stored(url)) == 6
    assert "0 added, 0 changed, 2 removed, 4 unchanged" in told(shell("schedule", "import", file))
    shop("# nothing\n")
    refused = told(shell("schedule", "import", file), 6)
    assert "remove 4 of the 4 schedules" in refused
    assert "--yes" in refused
    assert len(stored(url)) == 4
    told(shell("schedule", "import", file, "--yes"))
    assert stored(url) == {}


def test_a_line_that_cannot_be_read_any_more_keeps_its_schedule(shell: Shell, url: str, shop: Write) -> None:
    file = shop("0 1 * * * /opt/backup one\n0 4 * * * /opt/sync all\n")
    told(shell("schedule", "import", file))
    before = stored(url)
    shop("0 1 * * * /opt/backup one\n0 99 * * * /opt/sync all\n")
    said = told(shell("schedule", "import", file), 5)
    assert "line 2: left out" in said
    assert "kept    shop-sync: a line that cannot be read may be its own; it goes on running" in said
    assert "--allow '/opt/sync all'" in said, "it could not go on"
    assert stored(url) == before
    documents = shell("schedule", "import", file, "--json").documents
    assert [(document["schedule"], document["change"]) for document in documents] == [
        ("shop-backup", "unchanged"), ("shop-sync", "kept"),
    ]  # fmt: skip


def test_lines_that_a_schedule_refuses_are_left_out_and_the_others_carried_over(
    shell: Shell, url: str, shop: Write
) -> None:
    file = shop("RANDOM_DELAY=120\n* * * * * /opt/often\n0 4 * * * /opt/rarely\n")
    assert "line 2: left out: with this jitter" in told(shell("schedule", "import", file), 5)
    assert list(stored(url)) == ["shop-rarely"]


def test_a_line_that_two_crontabs_have_is_carried_over_for_both_and_said(shell: Shell, url: str, shop: Write) -> None:
    file = shop("0 1 * * * /opt/a\n")
    told(shell("schedule", "import", file))
    said = told(shell("schedule", "import", file, "--owner", "crontab:other"))
    assert f"line 1: it runs twice: it is schedule shop-a of crontab:{file} too" in said
    assert f"zwheel schedule import /dev/null --owner crontab:{file} --yes" in said
    assert {name: owner for name, (_, owner) in stored(url).items()} == {
        "shop-a": f"crontab:{file}", "shop-a-2": "crontab:other",
    }  # fmt: skip


def test_a_crontab_that_each_machine_has_belongs_to_its_machine(
    shell: Shell, url: str, shop: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shop("0 1 * * * root /opt/a\n")
    monkeypatch.setattr(crontab_source, "_SYSTEM_FILE", file)
    for host, command in (("web1", "/opt/a"), ("web2", "/opt/b")):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        shop(f"0 1 * * * root {command}\n")
        told(shell("schedule", "import", file))
    assert stored(url) == {
        "shop-a": ("/opt/a", f"crontab:web1:{file}"), "shop-b": ("/opt/b", f"crontab:web2:{file}"),
    }  # fmt: skip


def test_the_words_are_those_of_the_schedule_s_own_name(shell: Shell, url: str, shop: Write) -> None:
    file = shop("H 3 * * * /opt/a\n")
    document = shell("schedule", "import", file, "--json").document
    assert f"at {document['next'][11:16]} every day" == document["words"]
    assert str(document["words"]) in told(shell("schedule", "show", "shop-a"))


def test_every_entry_that_a_worker_needs_is_printed_once_to_be_pasted(shell: Shell, shop: Write) -> None:
    lines = [f"0 {n} * * * /opt/it's{n} > x" for n in range(6)]
    file = shop("A=1\nB=2\nTZ=UTC\n" + "\n".join([*lines, *lines]) + "\n")
    said = told(shell("schedule", "import", file, "--queue", "ops", "--dry-run"))
    pasted = said[said.index("zwheel worker") :].replace("\\\n", "").partition("\n")[0]
    words = shlex.split(pasted)
    assert words[:5] == ["zwheel", "worker", "--allow-shell", "--queue", "ops"]
    allowed = [f"/opt/it's{n} > x" for n in range(6)]
    assert words[5:] == [word for entry in [allowed[0], "A=", "B=", *allowed[1:]] for word in ("--allow", entry)]
    documents = shell("schedule", "import", file, "--dry-run", "--json").documents
    assert documents[0]["allow"] == [allowed[0], "A=", "B="]
    odd = shop("SHELL=/opt/sh\n0 1 * * * a\n")
    assert "--allow '*'" in told(shell("schedule", "import", odd, "--dry-run"))


def test_the_input_of_a_command_is_shown(shell: Shell, shop: Write) -> None:
    file = shop("0 1 * * * mail ann%Subject: hi%%Bye\n")
    assert "mail ann%Subject: hi%%Bye" in told(shell("schedule", "import", file, "--dry-run"))


def test_a_dry_run_needs_no_redis_to_show_the_lines(bare: Shell, shop: Write) -> None:
    file = shop("0 1 * * * /opt/a\n")
    done = bare("schedule", "import", file, "--dry-run", "--json", "--url", "redis://127.0.0.1:1/0")
    assert done.code == 0
    assert json.loads(done.out)["schedule"] == "shop-a"


def test_a_zone_that_is_none_is_an_error_and_no_list_of_lines(bare: Shell, shop: Write) -> None:
    assert "Mars" in told(bare("schedule", "import", shop("0 1 * * * /opt/a\n"), "--zone", "Mars/Base"), 2)
