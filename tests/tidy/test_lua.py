"""A script's header is a contract: here it is compared with the body, and the body with what is portable and bounded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zwheel.calls.scripts import NAMES
from zwheel.keys import ShardKeys

from .lua_source import SECTIONS, globals_of, include_files, included, read, scripts, without_comments, without_strings
from .tree import ROOT, short

IN_SCRIPTS = {
    "KEYS",
    "ARGV",
    "redis",
    "math",
    "string",
    "table",
    "tonumber",
    "type",
    "ipairs",
    "pairs",
    "next",
    "error",
} | {
    "select",
    "unpack",
}
"""What Redis, Valkey and fakeredis all have and zwheel needs. Not there: struct, cmsgpack, bit, cjson, loadstring,
pcall; and tostring, which loses digits past the 14th. `error` only where nobody waits for the answer: its text differs."""
UNBOUNDED = {
    "KEYS", "SCAN", "HSCAN", "SSCAN", "ZSCAN", "HGETALL", "HKEYS", "HVALS", "SMEMBERS", "SORT", "LRANGE",
    "EVAL", "EVALSHA", "FCALL", "SCRIPT", "CONFIG", "DEBUG", "FLUSHALL", "FLUSHDB", "RANDOMKEY", "PUBLISH",
    "SELECT", "WAIT", "RENAME", "ZUNIONSTORE", "ZINTERSTORE", "ZREMRANGEBYSCORE", "ZREMRANGEBYRANK",
}  # fmt: skip
A_BATCH = {"depart": {"HGETALL"}}
"""What a call put there itself: no more than one call may take."""
WHEN_FULL = {"claim", "settle", "offer", "extend", "reap"}
"""These must work when Redis is out of memory: each of them lets a job end or another worker have it."""
WHEN_ROOM = {"enqueue"}
"""These must be refused then: they bring more."""
TIMES = r"(?:now|now_us|clock_us|\w+_ms)"

CALL = re.compile(r"redis\.p?call\(\s*(?:'([A-Z]+)')?")
RIGHTS = re.compile(r"(?<!function )\brights\(\w+((?:,\s*'[A-Z]+')+)\)")
WRITES = {"DEL", "HSET", "HSETNX", "HDEL", "HINCRBY", "PEXPIRE", "ZADD", "ZREM", "RPUSH", "SET"}
READS = {"EXISTS", "HEXISTS", "HGETALL", "HLEN", "HSTRLEN", "LLEN", "ZCARD", "ZMSCORE", "ZRANGE", "INFO"}
ALWAYS_FIRST = {"TIME", "GET", "HMGET", "HGET"}
"""Every script reads by these before it writes, so that it ends there, whole, when one of them is refused."""
PLACE = re.compile(r"\b{}\[([^\]]+)\]")
ANSWER = re.compile(r"return \{ ([^,}]+)")

each_script = pytest.mark.parametrize("path", scripts(), ids=lambda path: path.stem)
each_file = pytest.mark.parametrize("path", [*scripts(), *include_files()], ids=short)


def test_the_loader_knows_every_script() -> None:
    assert sorted(NAMES) == [path.stem for path in scripts()]


@each_script
def test_the_first_line_says_lua_and_its_flags(path: Path) -> None:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    assert re.fullmatch(r"#!lua( flags=[a-z,-]+)?", first)
    flags = read(path).flags
    assert flags <= {"allow-oom"}
    if path.stem in WHEN_FULL:
        assert flags == {"allow-oom"}
    if path.stem in WHEN_ROOM:
        assert flags == set()


@each_script
def test_the_header_has_every_section(path: Path) -> None:
    sections = read(path).sections
    assert list(sections) == ["summary", *SECTIONS]
    assert re.match(rf"{path.stem}: \S.*\.$", sections["summary"])
    assert all(sections.values())


@each_script
def test_keys_of_the_header_are_the_keys_of_the_body(path: Path) -> None:
    script = read(path)
    places = script.places("KEYS")
    assert places.named
    literal, computed = used(script.code, "KEYS")
    assert literal == set(places.named)
    assert computed == places.more


@each_script
def test_arguments_of_the_header_are_the_arguments_of_the_body(path: Path) -> None:
    script = read(path)
    places = script.places("ARGV")
    assert places.named
    literal, computed = used(script.code, "ARGV")
    assert literal == set(places.named)
    assert computed == places.more


def used(code: str, table: str) -> tuple[set[int], bool]:
    """Find the positions of KEYS or ARGV that a script names as numbers, and whether it computes others."""
    indices = [found[1].strip() for found in re.finditer(PLACE.pattern.format(table), code)]
    literal = {int(index) for index in indices if index.isdigit()}
    whole = re.search(rf"(?:#|\bunpack\(){table}\b", code) is not None
    return literal, whole or any(not index.isdigit() for index in indices)


@each_script
def test_a_key_is_called_what_keys_py_calls_it(path: Path) -> None:
    shard = ShardKeys.of("zw", "q")
    values = [getattr(shard, name) for name in shard.__slots__]
    known = {value.removeprefix(f"{shard.tag}:") for value in values if str(value).startswith(f"{shard.tag}:")}
    called = {text.split()[0].rstrip(",.;") for text in read(path).places("KEYS").named.values()}
    assert called - known <= {"replay", "bucket", "set", "queues", "offered"}


@each_script
def test_the_answers_are_those_of_the_header(path: Path) -> None:
    script = read(path)
    words = re.split(r"[,;:.(]| with ", script.sections["Returns"], maxsplit=1)[0]
    declared = {word.strip() for word in words.split("|")}
    given = {word for first in ANSWER.findall(script.code) for word in re.findall(r"'(\w+)'", first)}
    assert given == declared
    assert all(re.fullmatch(r"[a-z]+", word) for word in declared)


@each_script
def test_the_invariants_it_keeps_are_written_down(path: Path) -> None:
    named = re.findall(r"I\d+\b", read(path).sections["Keeps"])
    assert named
    assert named == sorted(set(named), key=lambda name: int(name[1:]))
    explained = "\n".join(
        page.read_text(encoding="utf-8")
        for page in (ROOT / "lua" / "README.md", *(ROOT / "docs").rglob("*.md"))
        if page.is_file()
    )
    assert [name for name in named if re.search(rf"\b{name}\b", explained) is None] == []


@each_script
def test_a_batch_has_a_limit_in_the_header(path: Path) -> None:
    cost = read(path).sections["Cost"]
    assert cost.startswith("O(")
    if cost.startswith("O(jobs"):
        assert re.search(r"at most \d+", cost), "say how much one call may do"


@each_script
def test_no_global_is_set_and_only_portable_ones_are_read(path: Path) -> None:
    found = globals_of(read(path).code)
    assert found.written == set()
    assert found.read - IN_SCRIPTS == set()


@each_script
def test_only_bounded_commands_are_called_and_named_in_place(path: Path) -> None:
    code = read(path).code
    commands = [found[1] for found in CALL.finditer(code)]
    assert None not in commands, "a command that is not written out cannot be checked"
    assert set(commands) & UNBOUNDED == A_BATCH.get(path.stem, set())
    assert set(re.findall(r"redis\.(\w+)", without_strings(code))) <= {"call", "pcall", "acl_check_cmd"}
    for found in re.finditer(r"redis\.call\(\s*'Z(?:REV)?RANGE(?:BYSCORE|BYLEX)?'[^\n]*", code):
        assert not re.search(r", 0, -1\b", found[0]), "an unbounded range"
        if "BYSCORE" in found[0] or "BYLEX" in found[0]:
            assert "'LIMIT'" in found[0], found[0]


@each_script
def test_a_script_asks_for_every_right_to_write_before_it_writes(path: Path) -> None:
    code = read(path).code
    asked = {name for found in RIGHTS.finditer(code) for name in re.findall(r"[A-Z]+", found[1])}
    called = {found[1] for found in CALL.finditer(code)}
    assert called & WRITES <= asked, "an error in the middle keeps what was written before it"
    assert called <= asked | ALWAYS_FIRST | READS, "say here whether it writes"
    assert asked <= called, "a right that nobody needs"


@each_file
def test_an_error_is_caught_only_where_a_damaged_key_must_not_stop_a_script(path: Path) -> None:
    code = without_comments(path.read_text(encoding="utf-8"))
    caught = set(re.findall(r"redis\.pcall\('([A-Z]+)'", code))
    known = {
        "count": {"HINCRBY"},
        "wake": {"LLEN"},
        "claim": {"ZRANGE"},
        "outage": {"INFO"},
        "offered": {"ZRANGE"},
        "offer": {"ZRANGE"},
        "join": {"HMGET"},
        "drop": {"HDEL"},
    }
    assert caught <= known.get(path.stem, set())


@each_script
def test_the_clock_is_read_at_most_once_and_by_the_include(path: Path) -> None:
    script = read(path)
    assert "'TIME'" not in script.own
    assert script.code.count("'TIME'") <= 1
    assert len(re.findall(r"(?<!function )\bclock\(", script.code)) <= 1


@each_script
def test_each_include_exists_once_and_is_used(path: Path) -> None:
    script = read(path)
    assert len(set(script.includes)) == len(script.includes)
    for name in script.includes:
        source = without_comments((path.parent / "include" / f"{name}.lua").read_text(encoding="utf-8"))
        functions = re.findall(r"^local function (\w+)", source, re.MULTILINE)
        assert functions, f"{name} holds no function"
        uses = {function: len(re.findall(rf"\b{function}\b", script.code)) for function in functions}
        own = {function: len(re.findall(rf"\b{function}\b", source)) for function in functions}
        assert any(uses[function] > own[function] for function in functions), f"{name} is included and not used"


@each_file
def test_a_time_is_never_joined_to_text_as_a_number(path: Path) -> None:
    code = without_strings(without_comments(path.read_text(encoding="utf-8")))
    assert re.search(rf"\.\.\s*{TIMES}\b(?!\()|\b{TIMES}\s*\.\.", code) is None


@each_file
def test_the_hand_is_the_house_style(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.endswith("\n")
    assert "\t" not in source
    assert [line for line in source.splitlines() if len(line) > 120 or line != line.rstrip()] == []
    assert '"' not in re.sub(r"'(?:\\.|[^'\\\n])*'", "", without_comments(source)), "strings are in single quotes"


@pytest.mark.parametrize("path", include_files(), ids=lambda path: path.stem)
def test_an_include_says_what_it_is_and_some_script_uses_it(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert re.match(rf"-- {path.stem}: \S", source)
    assert included(source) == (), "includes are named by the scripts, not by each other"
    assert [script.stem for script in scripts() if path.stem in read(script).includes]


def test_the_readme_of_the_scripts_names_each_of_them() -> None:
    text = (ROOT / "lua" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:lua/)?(\w+)\.lua`", text)) | set(re.findall(r"`(\w+)`", text))
    assert [path.stem for path in scripts() if path.stem not in named] == []
    files = {path.stem for path in (*scripts(), *include_files())}
    assert set(re.findall(r"`(?:lua/|include/)*(\w+)\.lua`", text)) - files == set()


@each_script
def test_each_transition_has_a_test_file_of_its_name(path: Path) -> None:
    assert (ROOT / "tests" / "lua" / f"test_{path.stem}.py").is_file()
