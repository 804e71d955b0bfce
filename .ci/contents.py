"""Compare a built wheel with the tree: every module and every script is in it, and nothing else is."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = {".py", ".lua", ".typed"}


def expected() -> set[str]:
    """List what the wheel must hold; cli/, workers/ and lua/ are mapped below zwheel/."""
    names = set()
    for top in ("zwheel", "cli", "workers", "lua"):
        base = ROOT / top
        for path in base.rglob("*"):
            inside = path.relative_to(ROOT).as_posix()
            if path.is_file() and path.suffix in SHIPPED and "__pycache__" not in path.parts:
                names.add(inside if top == "zwheel" else f"zwheel/{inside}")
    return names


def main() -> None:
    """Exit with 1 and the difference when there is one."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    wanted = expected()
    for title, names in (("missing from the wheel", wanted - held), ("not expected in the wheel", held - wanted)):
        if names:
            sys.exit(f"{title}: {', '.join(sorted(names))}")
    sys.stdout.write(f"the wheel holds all {len(wanted)} files\n")


main()
