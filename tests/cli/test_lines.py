from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zwheel.cli.lines import Line, Splitter


def split(pieces: list[bytes], limit: int = 1000) -> list[Line]:
    splitter = Splitter(limit)
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.end()


@given(st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\x00", b"\n"))))
def test_lines_do_not_depend_on_how_they_arrive(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    lines = whole.split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert split(pieces) == [(i, line.removesuffix(b"\r")) for i, line in enumerate(lines, 1)]


def test_the_last_line_needs_no_end() -> None:
    assert split([b"a\nb"]) == [(1, b"a"), (2, b"b")]
    assert split([b"a\nb\n"]) == [(1, b"a"), (2, b"b")]
    assert split([]) == []


def test_a_line_over_the_limit_is_reported_without_its_bytes_and_the_next_is_whole() -> None:
    assert split([b"x" * 11 + b"\nok\n"], limit=10) == [(1, None), (2, b"ok")]
    assert split([b"x" * 9, b"x" * 9, b"x" * 9, b"\nok"], limit=10) == [(1, None), (2, b"ok")]
    assert split([b"x" * 9, b"x" * 9], limit=10) == [(1, None)]


def test_a_line_without_end_is_not_gathered_in_memory() -> None:
    splitter = Splitter(limit=10)
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
        assert len(splitter._rest) <= 10
    assert splitter.feed(b"\n") == [(1, None)]
