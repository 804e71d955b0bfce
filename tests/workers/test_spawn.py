"""A supervisor that cannot start a process at the moment."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from pathlib import Path

import pytest

from tests.workers.harness import eventually
from zwheel.workers.alive import is_running
from zwheel.workers.supervisor import Supervisor

pytestmark = pytest.mark.anyio


async def test_a_restart_that_cannot_be_spawned_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zwheel.supervisor")
    script = tmp_path / "child.sh"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    supervisor = Supervisor([str(script)], 2, 1000)
    running = asyncio.create_task(supervisor.run())

    def said(text: str) -> list[str]:
        return [message for message in caplog.messages if text in message]

    async def count(text: str) -> int:
        assert not running.done()
        return len(said(text))

    await eventually(lambda: count(" started"), lambda n: n == 2)
    first, second = (int(re.findall(r"process (\d+) started", line)[0]) for line in said(" started"))
    # In life there is no room for another process at that moment.
    script.chmod(0o644)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: count("cannot start a worker process"), lambda n: n >= 2)
    assert is_running(second)
    script.chmod(0o755)
    await eventually(lambda: count(" started"), lambda n: n == 3)
    # A child that does not listen on its line gets the signal.
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await running == 0
    assert not is_running(second)
