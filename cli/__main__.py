"""`python -m zwheel.cli` is `zwheel`."""

from __future__ import annotations

if __name__ == "__main__":
    # Not at the top: a process that runs a task of its own loads this file again, by its path and under another name.
    from . import main

    main()
