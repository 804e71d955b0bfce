from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zwheel.cli.layout import Cell, Column
from zwheel.cli.output import Output, clean, clean_lines, to_json

HOSTILE = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x061C, *range(0x200B, 0x2010), *range(0x2028, 0x2030)]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("Zażółć gęślą jaźń 明天", "Zażółć gęślą jaźń 明天"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;owned title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq secret\x1b\\after", "after"),
        ("\x1bcreset", "reset"),
        ("one\ntwo\tthree\r\n", "one two three  "),
        ("\u202egnp.exe", "gnp.exe"),
        ("\u2066isolate\u2069", "isolate"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("bell\x07\x00nul", "bellnul"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("\x1b[", ""),
    ],
)
def test_what_a_terminal_would_act_on_is_stripped(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(alphabet=st.one_of(st.sampled_from(HOSTILE + "[]mHJ;?0123456789\\"), st.characters())))
def test_no_text_gets_a_control_character_through(text: str) -> None:
    shown = clean(text)
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in shown)
    assert not set(shown) & set(HOSTILE)
    assert clean(shown) == shown


@given(st.text(alphabet=st.one_of(st.sampled_from(HOSTILE), st.characters())))
def test_json_loses_nothing_and_holds_no_control_character(text: str) -> None:
    written = to_json({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert clean(written) == written


def test_lines_of_a_traceback_stay_lines() -> None:
    assert clean_lines("a\n\tb\x1b[2J\r\nc") == ["a", "    b", "c"]


def piped(**settings: bool) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(stdout=out, stderr=err, **settings), out, err


def test_a_piped_table_is_aligned_and_never_shortened() -> None:
    output, out, _ = piped()
    long = "x" * 300
    output.table([Column("id"), Column("n", right=True)], [["a明", "1"], [Cell(long, "red"), "1,000"]], empty="none")
    assert out.getvalue().splitlines() == [
        f"{'ID':<300}  {'N':>5}",
        f"a明{' ' * 297}  {'1':>5}",
        f"{long}  1,000",
    ]


def test_an_empty_table_leaves_stdout_empty_and_says_so_on_stderr() -> None:
    output, out, err = piped()
    output.table([Column("id")], [], empty="no jobs")
    assert (out.getvalue(), err.getvalue()) == ("", "no jobs\n")


def test_cells_of_a_table_are_stripped() -> None:
    output, out, _ = piped()
    output.table([Column("id")], [["\x1b[2Jevil\nline"]], empty="none")
    assert out.getvalue() == "ID\nevil line\n"


def test_quiet_and_json_write_no_notes() -> None:
    for settings in ({"quiet": True}, {"json": True}):
        output, out, err = piped(**settings)
        output.note("beside")
        assert (out.getvalue(), err.getvalue()) == ("", "")


def test_an_error_is_a_sentence_or_a_document() -> None:
    output, _, err = piped()
    output.error("bad \x1b[1mthing", exit=6)
    assert err.getvalue() == "zwheel: bad thing\n"
    output, _, err = piped(json=True)
    output.error("bad", exit=6)
    assert json.loads(err.getvalue()) == {"error": "bad", "exit": 6}


def test_fields_indent_the_lines_of_a_list() -> None:
    output, out, _ = piped()
    output.fields([("id", "a"), ("failures", ["first", "  second\x1b[0m"])])
    assert out.getvalue() == "id        a\nfailures  first\n            second\n"


def test_progress_without_a_terminal_writes_nothing() -> None:
    output, out, err = piped()
    with output.progress("work", 10) as report:
        report(5)
        report(10, "other work")
    assert (out.getvalue(), err.getvalue()) == ("", "")
