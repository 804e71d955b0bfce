"""Reading a schedule record refuses what it does not know in one way, whatever anybody wrote there."""

from __future__ import annotations

import pytest

from tests.unit.schedules.strange import FAILS_WHEN_DUE, STRANGE, stored
from zwheel import UndecodableJob
from zwheel.schedules.state import read_schedule


def test_one_that_is_known_is_read() -> None:
    assert read_schedule(stored("good"), "good", "default").name == "good"


@pytest.mark.parametrize("what", sorted(set(STRANGE) - {FAILS_WHEN_DUE}))
def test_it_is_refused_with_one_short_sentence_that_names_it(what: str) -> None:
    with pytest.raises(UndecodableJob, match="schedule bad of queue default cannot be read: ") as refused:
        read_schedule(STRANGE[what], "bad", "default")
    assert len(str(refused.value)) < 400
    assert str(refused.value).isprintable()
