"""The process of a `process=True` task, as it looks at its worker."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from zwheel.workers import isolated_child


@pytest.mark.parametrize(("age", "least"), [(0.0, 0.9), (0.7, 0.4), (10.0, 0.4)])
def test_a_process_waits_for_its_stopped_worker_as_long_as_the_lease_lets_it(
    monkeypatch: pytest.MonkeyPatch, age: float, least: float
) -> None:
    lease_s = 1.0
    said: list[str] = []
    began = time.monotonic()
    line = SimpleNamespace(leased_ns=int((began - age * lease_s) * 1e9), try_to_say=said.append)

    class Ended(BaseException):
        pass

    def ends() -> None:
        raise Ended

    monkeypatch.setattr(isolated_child, "is_running", lambda pid: False)
    monkeypatch.setattr(isolated_child, "_end_group", ends)
    with pytest.raises(Ended):
        isolated_child._watch_over(1, lease_s, line)  # type: ignore[arg-type]
    assert said == ["left"]
    assert time.monotonic() - began >= least * lease_s
