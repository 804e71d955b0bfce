"""Commands as jobs: what may be asked for, and what a worker lets run."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from zwheel import Wheel
from zwheel.client.sync import SyncWheel
from zwheel.errors import ConfigError, InvalidInput
from zwheel.shell import COMMAND_LIMIT, SHELL_TASK, WORD_LIMIT, shell_kwargs
from zwheel.workers.failure import NotAllowed
from zwheel.workers.peers import Peer
from zwheel.workers.shell import HEAD_BYTES, TAIL_BYTES, Allowed, _Output, register_shell


def test_only_what_differs_from_the_default_travels() -> None:
    assert shell_kwargs(argv=("ls", "-l")) == {"argv": ["ls", "-l"]}
    assert shell_kwargs(argv=["ls", ""]) == {"argv": ["ls", ""]}
    assert shell_kwargs(line="a | b") == {"line": "a | b"}
    all_of_it: dict[str, Any] = {"line": "a", "stdin": "x\n", "env": {"A_1": ""}, "shell": "/bin/bash"}
    assert shell_kwargs(**all_of_it) == all_of_it
    assert shell_kwargs(argv=["x" * WORD_LIMIT])


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({}, "either argv="),
        ({"argv": ["a"], "line": "a"}, "either argv="),
        ({"argv": []}, "argv is a list of texts"),
        ({"argv": "ls"}, "argv is a list of texts"),
        ({"argv": {"a"}}, "argv is a list of texts"),
        ({"argv": [""]}, "the program is empty"),
        ({"argv": ["a", 1]}, "argv: a text is needed, not int"),
        ({"argv": ["a\0"]}, "argv: a NUL character"),
        ({"argv": ["\udc80"]}, "argv: not valid UTF-8"),
        ({"argv": ["x" * (WORD_LIMIT + 1)]}, "131,072 bytes are over the limit of 131,071"),
        ({"argv": ["é" * WORD_LIMIT]}, "262,142 bytes are over"),
        ({"argv": ["x" * 100_000] * 3}, "the command is 300,000 bytes"),
        ({"line": " \n"}, "no command in it"),
        ({"line": "a\0b"}, "line: a NUL"),
        ({"line": b"ls"}, "line: a text is needed, not bytes"),
        ({"line": "a", "shell": "bash"}, "'bash' is not an absolute path"),
        ({"line": "a", "shell": "/bin/\0"}, "shell: a NUL"),
        ({"line": "a", "shell": 7}, "shell: a text is needed"),
        ({"line": "a", "stdin": "\0"}, "stdin: a NUL"),
        ({"line": "a", "stdin": "x" * (COMMAND_LIMIT + 1)}, "stdin: 250,001 bytes are over"),
        ({"line": "aa", "stdin": "x" * (COMMAND_LIMIT - 1)}, "the command is 250,001 bytes"),
        ({"line": "a", "env": ["A=b"]}, "env is a mapping"),
        ({"line": "a", "env": {"A B": "x"}}, "'A B' is not the name of a variable"),
        ({"line": "a", "env": {"BASH_FUNC_ls%%": "() { evil; }"}}, "is not the name of a variable"),
        ({"line": "a", "env": {"A\n": "x"}}, "is not the name of a variable"),
        ({"line": "a", "env": {"A": 1}}, "the value of A is not a text"),
        ({"line": "a", "env": {"A": "\0"}}, "env A: a NUL"),
        ({"line": "a", "env": {"A": "x" * WORD_LIMIT}}, "env A: 131,073 bytes"),
    ],
)
def test_a_command_that_no_program_could_be_given_is_refused(kwargs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        shell_kwargs(**kwargs)


ENTRIES = ("backup.sh", "/usr/bin/pg_dump", "pg_dump shop | gzip", "a  b", "*.sh", "GREETING=")


@pytest.mark.parametrize(
    ("kwargs", "needed"),
    [
        ({"argv": ["backup.sh"]}, None),
        ({"argv": ["backup.sh", "--full", "; rm -rf /"]}, None),
        ({"argv": ["/usr/bin/pg_dump", "*"]}, None),
        ({"argv": ["*.sh"]}, None),
        ({"line": "pg_dump shop | gzip"}, None),
        ({"line": "a  b"}, None),
        ({"line": "backup.sh"}, None),
        ({"line": "a  b", "shell": "/bin/bash"}, None),
        ({"argv": ["backup.sh"], "env": {"GREETING": "x", "TZ": "UTC", "LANG": "C", "LC_ALL": "C"}}, None),
        ({"argv": ["pg_dump"]}, "pg_dump"),
        ({"argv": ["/tmp/backup.sh"]}, "/tmp/backup.sh"),
        ({"argv": ["./backup.sh"]}, "./backup.sh"),
        ({"argv": ["backup.sh "]}, "'*'"),
        ({"argv": ["evil.sh"]}, "evil.sh"),
        ({"argv": ["pg_dump", "shop", "|", "gzip"]}, "pg_dump"),
        ({"argv": ["pg_dump shop | gzip"]}, "'*'"),
        ({"line": "backup.sh --full"}, "'backup.sh --full'"),
        ({"line": "backup.sh;id"}, "'backup.sh;id'"),
        ({"line": "a b"}, "'a b'"),
        ({"line": "pg_dump shop | gzip "}, "'pg_dump shop | gzip '"),
        ({"line": "pg_dump shop | gzip\n"}, "'pg_dump shop | gzip\n'"),
        ({"line": "it's $HOME"}, "'it'\"'\"'s $HOME'"),
        ({"line": "a  b", "shell": "/tmp/sh"}, "'*'"),
        ({"argv": ["backup.sh"], "env": {"PATH": "/tmp"}}, "PATH="),
        ({"argv": ["backup.sh"], "env": {"LD_PRELOAD": "/tmp/x.so"}}, "LD_PRELOAD="),
        ({"line": "a  b", "env": {"GREETIN": "x"}}, "GREETIN="),
    ],
)
def test_only_what_an_entry_names_is_allowed(kwargs: dict[str, Any], needed: str | None) -> None:
    call = {"argv": None, "line": None, "env": {}, "shell": "/bin/sh", **kwargs}
    Allowed(["*"]).check(**call)
    if needed is None:
        Allowed(ENTRIES).check(**call)
        return
    with pytest.raises(NotAllowed) as caught:
        Allowed(ENTRIES).check(**call)
    assert str(caught.value).startswith("this worker does not run ")
    assert str(caught.value).endswith(f": start it with --allow {needed} to let it")
    # `needs` says which worker may run it: a worker that allows just this, or everything.
    for entries, able in ((["*"], True), ([*ENTRIES, *shlex.split(needed)], needed != "'*'"), (ENTRIES, False)):
        peer = Peer("", frozenset({SHELL_TASK}), Allowed(entries).digests)
        assert peer.can_run(SHELL_TASK, caught.value.needs) is (able or "*" in entries)


def test_an_entry_that_names_nothing_is_refused() -> None:
    for entry in ("", "  ", "-rf", "--allow-shell"):
        with pytest.raises(ConfigError, match="name a program"):
            Allowed(["ls", entry])


@pytest.mark.parametrize("make", [Wheel, SyncWheel])
def test_the_task_is_registered_on_any_wheel_and_again(make: type[Wheel] | type[SyncWheel]) -> None:
    wheel = make("redis://127.0.0.1:1")
    register_shell(wheel, ["ls"])
    register_shell(wheel, ["*"])
    task = wheel.tasks[SHELL_TASK]
    assert (task.is_async, task.policy.retries, task.policy.queue) == (True, 0, "default")


def test_of_a_long_output_the_beginning_and_the_end_are_kept() -> None:
    whole = bytes(65 + i % 26 for i in range(300_000))
    for size in (0, 10, HEAD_BYTES, HEAD_BYTES + TAIL_BYTES, HEAD_BYTES + TAIL_BYTES + 1, 200_000, 300_000):
        for step in (999, 65_536):
            output = _Output()
            for start in range(0, size, step):
                output.add(whole[start : min(size, start + step)])
            if size <= HEAD_BYTES + TAIL_BYTES:
                assert output.text() == whole[:size].decode()
                continue
            head, note, tail = output.text().split("\n")
            assert (head, tail) == (whole[:HEAD_BYTES].decode(), whole[size - TAIL_BYTES : size].decode())
            assert note == f"... {size - HEAD_BYTES - TAIL_BYTES:,} bytes cut ..."


def test_a_character_across_the_border_stays_whole_and_what_is_no_text_is_shown() -> None:
    output = _Output()
    output.add(b"x" * (HEAD_BYTES - 1) + "é".encode() + b"\xff")
    assert output.text().endswith("xé\\xff")
