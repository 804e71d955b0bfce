"""`python -m tests.workers.broken`: the command line, with workers whose guard ends by a fault."""

from __future__ import annotations

from zwheel.cli import main
from zwheel.workers.watch import Watch


async def breaks(self: Watch) -> None:
    """Have a fault."""
    raise RuntimeError("broken")


if __name__ == "__main__":
    Watch.run = breaks  # type: ignore[method-assign]
    main()
