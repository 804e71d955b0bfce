from __future__ import annotations

import io
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from zwheel.cli.context import Context, Shared
from zwheel.cli.values import day_name, headers, read_json, read_words, task_arguments
from zwheel.errors import InvalidInput, InvalidTime


def test_words_become_arguments() -> None:
    words = read_words(["1", '"two"', "[3]", "to=ann@example.com", "n:=2", "empty=", "url=a=b:=c"])
    args, kwargs = task_arguments(words)
    assert args == [1, "two", [3]]
    assert kwargs == {"to": "ann@example.com", "n": 2, "empty": "", "url": "a=b:=c"}
    assert not any(word.is_secret for word in words)


@pytest.mark.parametrize("word", ["-1.5", "null", "true", '{"a": "b=c"}', '"k=v"'])
def test_json_that_holds_an_equals_sign_or_looks_odd_is_still_json(word: str) -> None:
    (value,), kwargs = task_arguments(read_words([word]))
    assert kwargs == {}
    assert value == read_json(word)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("ann", "'ann' is not JSON"),
        ("ann", "write '\"ann\"' for a text, or key=ann"),
        ("n:=two", "'n:=...' is not JSON"),
        ("n:=NaN", "NaN is not JSON"),
        ("[Infinity]", "Infinity is not JSON"),
        ("[" * 100_000, "nested too deep"),
        ("n:=[1,", "column"),
        ("x=\udcff", "not valid UTF-8"),
        ('"\udcff"', "not valid UTF-8"),
    ],
)
def test_a_word_that_is_no_argument_is_refused_with_a_hint(word: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        task_arguments(read_words([word]))
    assert hint in str(caught.value)


def test_an_argument_given_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="n is given twice"):
        task_arguments(read_words(["n=1", "n:=2"]))


def test_json_is_read_from_files_and_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "value.json"
    file.write_text('{"zażółć": [1]}', encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[7]")))
    args, kwargs = task_arguments(read_words([f"@{file}", "n:=@-", "handle=@ann"]))
    assert args == [{"zażółć": [1]}]
    assert kwargs == {"n": [7], "handle": "@ann"}


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    file = tmp_path / "value.json"
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match=r"value\.json: not UTF-8: byte 0xff at 0"):
        task_arguments(read_words([f"@{file}"]))


@pytest.mark.parametrize("word", ["password=x", "api_key:=1", "accessToken=x"])
def test_a_secret_on_the_command_line_is_noticed(word: str) -> None:
    assert read_words([word])[0].is_secret


def test_headers_are_names_and_values() -> None:
    assert headers(["traceparent=00-a", "b=c=d"]) == {"traceparent": "00-a", "b": "c=d"}
    for bad in ("traceparent", "=x"):
        with pytest.raises(InvalidInput, match="write it as name=value"):
            headers([bad])


class At(Context):
    """A context in which it is a given time."""

    def now(self) -> datetime:
        return datetime(2026, 12, 31, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("today", "20261231"),
        ("Tomorrow", "20270101"),
        ("yesterday", "20261230"),
        ("2026-02-28", "20260228"),
        ("20260228", "20260228"),
    ],
)
def test_days_have_names(text: str, day: str) -> None:
    assert day_name(At(Shared(), "zwheel day show"), text) == day


@pytest.mark.parametrize("text", ["2026-02-30", "monday", "2026", "2026-2-3", "20261301", ""])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(InvalidTime, match="is not a day"):
        day_name(At(Shared(), "zwheel day show"), text)
