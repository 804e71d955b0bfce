"""The tasks that the workers of docker-compose.yml run; put your own in its place."""

from __future__ import annotations

import logging

from zwheel import Wheel

log = logging.getLogger("app")
wheel = Wheel()


@wheel.task(name="greet")
async def greet(name: str) -> None:
    """Say hello in the worker's log."""
    log.warning("hello %s", name)
