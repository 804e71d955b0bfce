"""lua/README.md is true: its chart is the scripts, its key table is zwheel/keys.py, its numbers are the code's."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from zwheel import keys as keys_module
from zwheel.calls.cancel import LEAST_KEPT_MS
from zwheel.calls.claim import LONGEST_ROLE_MS, ROLE_MS
from zwheel.calls.scripts import NAMES, script
from zwheel.job import JobState
from zwheel.keys import ShardKeys
from zwheel.record import HEADER_BYTES, LETTERS, STATES

LUA = Path(__file__).parents[2] / "lua"
README = (LUA / "README.md").read_text(encoding="utf-8")


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


EDGES = {row[0].strip("`").removesuffix(".lua"): (row[1], row[2]) for row in rows("States")}


def test_the_edges_of_the_chart_are_the_scripts_in_their_order() -> None:
    assert tuple(EDGES) == NAMES
    assert sorted(EDGES) == sorted(path.stem for path in LUA.glob("*.lua"))


#: These touch the roles of waiting workers, and where a shard is in a reshard, and no job; and the keys that they have.
NO_MOVES = {
    "step_down": "meta  2 replay  3 wake",
    "reshard": "meta; with list, the list of queues, alone  2 wake  3 jobs  4 schedules  5 leaving  6 days  7 dedup:expiry",
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_MOVES])
def test_an_edge_leads_where_the_header_says(name: str) -> None:
    """`settle: processing -> done, dead or scheduled.`, `extend: processing stays processing.`, `reap: processing -> scheduled, or dead.`"""
    sentence = script(name).header.splitlines()[0]
    found = re.match(rf"{name}: ([a-z, ]+?)(?: -> | stays )([a-z, ]+)", sentence)
    assert found
    source, target = (places(text) for text in found.groups())
    assert (source, target) == (places(EDGES[name][0]), places(EDGES[name][1]))


@pytest.mark.parametrize(("name", "keys"), NO_MOVES.items())
def test_a_script_that_moves_no_job_touches_none(name: str, keys: str) -> None:
    assert script(name).header.startswith(f"{name}: no job moves.")
    assert f"KEYS 1 {keys}\n" in script(name).header
    assert not re.search(r"redis\.call\('(?:HSET|HDEL|ZADD|ZREM)', (?!meta)", script(name).source)


def places(text: str) -> set[str]:
    """The states a phrase names; nothing and gone are one, and so are done and cancelled, which share a set."""
    named = set(re.findall(r"[a-z]+", text)) & (
        {str(state) for state in JobState} | {"nothing", "gone", "anywhere", "record"}
    )
    alike = {"gone": "nothing", "cancelled": "done" if "done" in named else "cancelled"}
    return {alike.get(word, word) for word in named}


def test_the_drawing_names_every_script_and_every_state() -> None:
    drawing = README.split("```")[1]
    words = set(re.findall(r"[a-z]+", drawing)) | {"repair", *NO_MOVES}
    assert words == set(NAMES) | {str(state) for state in JobState} | {"nothing"}


#: Keys that are put together from more than the shard.
COMPUTED = {
    "wheel": "wheel:<yyyymmdd>",
    "replay": "replay:<caller>:<lane>",
    "offered": "offered:<group>",
    "call": "call:<group>",
}


def documented_keys() -> dict[str, tuple[str, str]]:
    """Each key of `ShardKeys` with the type and the meaning its docstring gives."""
    tree = ast.parse(inspect.getsource(keys_module))
    shard = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "ShardKeys")
    found: dict[str, tuple[str, str]] = {}
    keys = ShardKeys.of("zw", "q")
    for position, node in enumerate(shard.body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            after = shard.body[position + 1]
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                kind, _, meaning = str(after.value.value).partition(" ")
                found[getattr(keys, node.target.id).removeprefix(f"{keys.tag}:")] = kind, meaning
        elif isinstance(node, ast.FunctionDef) and node.name in COMPUTED:
            kind, _, meaning = (ast.get_docstring(node) or "").partition(" ")
            found[COMPUTED[node.name]] = kind, meaning
    return found


def test_the_key_table_is_that_of_keys_py() -> None:
    table = {row[0].strip("`"): row[1] for row in rows("Keys")}
    code = documented_keys()
    fields = {field.name for field in dataclasses.fields(ShardKeys)} - {
        "namespace",
        "queue",
        "name",
        "shard",
        "shards",
        "label",
        "tag",
    }
    assert len(code) == len(fields) + len(COMPUTED), "a key in keys.py has no docstring that begins with its type"
    assert table == {name: kind.rstrip(":") for name, (kind, _) in code.items()}


def test_what_a_set_maps_to_what_is_said_alike_in_both() -> None:
    code = documented_keys()
    for name, _, meaning in rows("Keys"):
        theirs = code[name.strip("`")][1].replace("->", "→")
        if "→" in theirs:
            assert meaning.split(":")[0].split("→")[0].strip() == theirs.split("→")[0].strip()


def test_every_field_of_meta_that_a_script_names_is_in_the_table() -> None:
    named = README.split("Fields of `meta`:")[1].split("\n\n")[0]
    listed = set(re.findall(r"`([a-z_]+)`", named))
    used = set()
    for name in NAMES:
        source = script(name).source
        for call in re.findall(
            r"(?:read_meta\(|redis\.call\('(?:HMGET|HGET|HSET|HDEL|HINCRBY)', )meta,([^\n]*(?:\n\s+'[^\n]*)?)", source
        ):
            used |= set(re.findall(r"'([a-z_]+)'", call))
        used |= set(re.findall(r"\bcount\(meta, '([a-z_]+)'", source))
    assert used == listed


def test_the_record_table_is_that_of_the_code() -> None:
    table = rows("The record")
    assert table[-1][0] == f"{HEADER_BYTES + 1}–"
    letters = dict(re.findall(r"`([a-z])` ([a-z]+)", table[1][1]))
    assert letters == {letter: str(state) for letter, state in STATES.items()}
    ends = [re.findall(r"\d+", row[0]) for row in table[:-1]]
    starts = [int(numbers[0]) for numbers in ends] + [HEADER_BYTES + 1]
    assert [int(numbers[-1]) + 1 for numbers in ends] == starts[1:]


def test_the_letters_of_fields_are_those_of_the_code() -> None:
    assert {row[0].strip("`"): row[1] for row in rows("The fields of a record")} == LETTERS
    source = (LUA / "include" / "record.lua").read_text(encoding="utf-8")
    listed = re.search(r"^-- Fields: (.+?)\. Who", source, re.MULTILINE | re.DOTALL)
    assert listed
    assert dict(re.findall(r"([A-Za-z]) ([^;]+)", listed[1])) == LETTERS
    must = re.search(r"^local UNDERSTOOD = '(\w+)'", source, re.MULTILINE)
    assert must
    assert set(must[1]) == {letter for letter in LETTERS if letter.isupper()}


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"{ROLE_MS // 1000} to {LONGEST_ROLE_MS // 1000} s" in README
    assert "'EX', 300" in script("settle").source
    assert "5 minutes" in README
    assert LEAST_KEPT_MS == 600_000
    refused = {name for name in NAMES if "allow-oom" not in script(name).source.partition("\n")[0]}
    sentence = README.split("`allow-oom`")[1].split(".")[0]
    assert set(re.findall(r"`([a-z]+)`", sentence)) == refused
