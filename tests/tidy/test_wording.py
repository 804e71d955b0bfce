"""Messages count in plain English, and sentences that readers stumbled over stay away."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .test_project import TEXTS
from .tree import CODE, files, parse, short

_NOUNS = (
    "attempts|calls|entries|errors|events|failures|files|jobs|keys|leases|lines|occurrences|processes|queues|records|rows|"
    "parts|runs|schedules|tasks|threads|workers"
)
_PLURAL = re.compile(rf" (?:more |dead |worker )?(?:{_NOUNS})\b")
_FORMATTED = re.compile(rf"%d(?:{_PLURAL.pattern})")
#: Programs wait for these words of a worker's first line.
_KEPT = {"worker %s: %d tasks, queues %s, at %s"}
_STUMBLED = (
    "whose first act is firing", "hold at once;", "promoted that lacked", "share round trips", "needs no relation",
    "dropped for being strange", "nothing has been decided", "While the one before is active", "when jobs are short",
    "Only a claim of a worker that stops and holds nothing", "What waits here", "Told of the schedules whose",
    "is believed to carry it",
)  # fmt: skip


def counts(path: Path) -> Iterator[str]:
    """Texts of a file in which a number of any size stands before a plural."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _FORMATTED.search(node.value) and node.value not in _KEPT:
                yield f"{short(path)}:{node.lineno} {node.value}"
        elif isinstance(node, ast.JoinedStr):
            for i, (value, text) in enumerate(zip(node.values, node.values[1:], strict=False)):
                if not isinstance(value, ast.FormattedValue) or not isinstance(text, ast.Constant):
                    continue
                # A word of a table is no number.
                if isinstance(value.value, ast.Subscript):
                    continue
                before = node.values[i - 1] if i else None
                share = isinstance(before, ast.Constant) and str(before.value).endswith(" of ")
                # A limit has a known number, and "1 of 2 jobs" is right.
                limit = ast.unparse(value.value).replace("*", "").replace(" ", "").replace("_", "").isupper()
                if _PLURAL.match(str(text.value)) and not share and not limit:
                    yield f"{short(path)}:{node.lineno} {ast.unparse(node)}"


def test_one_job_is_not_called_1_jobs() -> None:
    assert [found for path in files(".py", *CODE, "examples") for found in counts(path)] == []


@pytest.mark.parametrize("sentence", _STUMBLED)
def test_a_sentence_that_readers_stumbled_over_stays_away(sentence: str) -> None:
    own = Path(__file__)
    assert [short(path) for path in TEXTS if path != own and sentence in path.read_text(encoding="utf-8")] == []
