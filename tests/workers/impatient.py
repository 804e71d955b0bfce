"""`python -m tests.workers.impatient`: the command line, its workers replaced after three leases without their loop."""

from __future__ import annotations

from zwheel.cli import main
from zwheel.workers import WorkerSettings

if __name__ == "__main__":
    defaults = WorkerSettings.__init__.__kwdefaults__
    assert defaults is not None
    defaults["stuck_ms"] = 0
    main()
