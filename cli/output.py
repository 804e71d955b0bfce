"""Everything the commands write: tables for people, JSON for machines, notes and errors on stderr.

Job data is hostile text. Nothing reaches a terminal without `clean`, and JSON escapes what `clean` would strip.
"""

from __future__ import annotations

import errno
import json
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol, TextIO

from zwheel.outside import UNSAFE

from .layout import BAR_COLUMNS, GAP, Cell, Column, Row, bar, cell_width, fit, natural_widths

__all__ = ["Cell", "Column", "Output", "Report", "Row", "clean", "clean_lines", "state_cell", "to_json"]

#: What a terminal may act on: escape sequences (CSI, the string kinds with their text, two-character ones).
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c)?"
    "|\x1b[ -/]*[0-~]?"
)
_SPACES = str.maketrans({"\t": " ", "\n": " ", "\r": " ", "\u2028": " ", "\u2029": " ", "\u202f": " "})

#: Work that takes less than this shows no bar, seconds.
BAR_AFTER_S = 0.5
#: The styles of the states in a table.
STATE_STYLES = {"scheduled": "cyan", "processing": "yellow", "done": "green", "dead": "red", "cancelled": "dim"}


def clean(text: object) -> str:
    """Strip what a terminal would act on: escape sequences, control, bidi and invisible characters; one line."""
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return UNSAFE.sub("", _ESCAPES.sub("", shown).translate(_SPACES))


def clean_lines(text: str) -> list[str]:
    """Strip each line of a text of several lines, such as a traceback; tabs become four spaces."""
    return [clean(line.expandtabs(4)) for line in text.replace("\r\n", "\n").split("\n")]


def to_json(value: object) -> str:
    """Write one line of JSON that loses nothing and that a terminal can show: unsafe characters are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    return UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1]


def state_cell(state: str) -> Cell:
    """Show a job state in its colour."""
    return Cell(state, STATE_STYLES.get(state, ""))


class Output:
    """Where one command writes. Results go to stdout, everything else to stderr."""

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        color: bool = True,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.color = color
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr

    @property
    def unicode(self) -> bool:
        """Whether stdout can show block characters."""
        return (getattr(self.stdout, "encoding", None) or "").lower().replace("-", "") in ("utf8", "utf16", "utf32")

    @property
    def width(self) -> int:
        """The columns of the terminal, 100 when there is none."""
        import shutil

        return shutil.get_terminal_size((100, 24)).columns if self.stdout.isatty() else 100

    def line(self, text: str) -> None:
        """Write one line for a person on stdout; it is stripped."""
        self._write(clean(text))

    def verbatim(self, text: str) -> None:
        """Write a text of our own, of several lines, as it is."""
        self._write(text)

    def value(self, document: Mapping[str, object]) -> None:
        """Write one JSON document on a line of its own."""
        self._write(to_json(document))

    def flush(self) -> None:
        """Let a reader have what was written so far."""
        self.stdout.flush()

    def note(self, text: str) -> None:
        """Say something beside the result, on stderr; nothing with --quiet or --json."""
        if not self.quiet and not self.json:
            try:
                self._tell(clean(text))
            except OSError as error:
                # The terminal is gone, and its reader too.
                if error.errno != errno.EIO:
                    raise

    def error(self, text: str, **details: object) -> None:
        """Write one sentence, or with --json one document, on stderr."""
        if self.json:
            self._tell(to_json({"error": str(text), **details}))
        else:
            self._tell(f"zwheel: {clean(text)}")

    def tell_json(self, document: Mapping[str, object]) -> None:
        """Write one JSON document on stderr, beside the results."""
        self._tell(to_json(document))

    def table(self, columns: Sequence[Column], rows: Sequence[Row], *, empty: str) -> None:
        """Write a table: drawn by rich on a terminal, else plain and aligned, never shortened.

        Without rows it says `empty` on stderr, so that a pipe reads nothing.
        """
        if not rows:
            self.note(empty)
            return
        cells = [[_as_cell(cell) for cell in row] for row in rows]
        if self.stdout.isatty():
            self._rich_table(columns, cells)
            return
        titles = [_header(column.title) for column in columns]
        widths = natural_widths(titles, cells)
        texts = [[self._shown(cell, BAR_COLUMNS) for cell in row] for row in cells]
        for row in (titles, *texts):
            padded = (
                " " * (width - cell_width(text)) + text if column.right else text + " " * (width - cell_width(text))
                for text, width, column in zip(row, widths, columns, strict=True)
            )
            self._write((" " * GAP).join(padded).rstrip())

    def _shown(self, cell: Cell, width: int) -> str:
        return cell.text if cell.share is None else bar(cell.share, width, unicode=self.unicode)

    def fields(self, pairs: Iterable[tuple[str, str | Cell | Sequence[str]]]) -> None:
        """Write names with their values below each other; a sequence of lines is indented under its name."""
        known = list(pairs)
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            label = name.ljust(width)
            if isinstance(value, (str, Cell)):
                self._styled(f"{label}  ", _as_cell(value))
            else:
                for number, text in enumerate(value):
                    self._write(f"{label if number == 0 else ' ' * width}  {clean(text)}".rstrip())

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Report]:
        """Show a bar on stderr while the block runs, when stderr is a terminal.

        Yields `report(done so far)`, or `report(done, what)` to say something new beside the bar. It appears only
        after half a second, so that short work shows nothing.
        """
        if self.quiet or self.json or not self.stderr.isatty():
            yield _no_report
            return
        with _Bar(self, what, total) as shown:
            yield shown.report

    def confirm(self, question: str) -> bool:
        """Ask on stderr, read from stdin; anything but y or yes is no. Ctrl-C ends the command at once."""
        # An event loop would note the Ctrl-C and let the reading go on.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.stderr.write(f"{clean(question)} [y/N] ")
            self.stderr.flush()
            return sys.stdin.readline().strip().lower() in ("y", "yes")
        finally:
            signal.signal(signal.SIGINT, before)

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: stdin and stderr are terminals and no --json."""
        return not self.json and sys.stdin is not None and sys.stdin.isatty() and self.stderr.isatty()

    def _write(self, text: str) -> None:
        self.stdout.write(text + "\n")

    def _tell(self, text: str) -> None:
        self.stderr.write(text + "\n")
        self.stderr.flush()

    def _styled(self, prefix: str, cell: Cell) -> None:
        if cell.style and self.color and self.stdout.isatty():
            from rich.console import Console
            from rich.text import Text

            Console(file=self.stdout, highlight=False).print(Text(prefix) + Text(cell.text, cell.style), soft_wrap=True)
        else:
            self._write(f"{prefix}{cell.text}".rstrip())

    def _rich_table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        widths = natural_widths([column.title for column in columns], rows)
        chosen = fit(columns, widths, self.width)
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for i, width in chosen:
            justify: Literal["left", "right"] = "right" if columns[i].right else "left"
            table.add_column(columns[i].title, width=width, justify=justify, no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*(Text(self._shown(row[i], width), row[i].style) for i, width in chosen))
        needed = sum(width for _, width in chosen) + GAP * len(chosen)
        console = Console(file=self.stdout, no_color=not self.color, highlight=False, width=max(self.width, needed))
        console.print(table, soft_wrap=True)
        shown = {i for i, _ in chosen}
        # A column without a title says how far off a time is.
        left_out = [column.title or "how long from now" for i, column in enumerate(columns) if i not in shown]
        if left_out:
            self.note(f"without {', '.join(left_out)}: this terminal is too narrow, `| cat` or --json shows all")


class Report(Protocol):
    """Tells how far some work has come."""

    def __call__(self, done: int, what: str | None = None) -> None:
        """Take the amount done so far, and what to show beside it."""


def _no_report(done: int, what: str | None = None) -> None:
    """Show nothing."""


class _Bar:
    """A rich progress bar that waits a little before it shows itself."""

    def __init__(self, out: Output, what: str, total: int | None) -> None:
        from time import monotonic

        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._clock = monotonic
        self._started = monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(file=out.stderr, no_color=not out.color),
            transient=True,
        )
        self._task = self._progress.add_task(clean(what), total=total)
        self._shown = False

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._progress.stop()

    def report(self, done: int, what: str | None = None) -> None:
        self._progress.update(self._task, completed=done, description=None if what is None else clean(what))
        if not self._shown and self._clock() - self._started >= BAR_AFTER_S:
            self._shown = True
            self._progress.start()


def _header(title: str) -> str:
    """Write a column's title in capitals, but not what stands in brackets: a time zone has its own."""
    word, bracket, rest = title.partition(" (")
    return word.upper() + bracket + rest


def _as_cell(value: str | Cell) -> Cell:
    if isinstance(value, Cell):
        return Cell(clean(value.text), value.style, value.share)
    return Cell(clean(value))
