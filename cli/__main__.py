"""`python -m zwheel.cli` is `zwheel`."""

from __future__ import annotations

if __name__ == "__main__":
    # Not at the top: a process that runs a task of its own loads this file again, by its path and under another name.
    import os
    import sys

    # `python -m` looks into the current directory before it looks at its own modules: a `secrets.py` there would run.
    if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):
        del sys.path[0]

    from . import main

    main()
