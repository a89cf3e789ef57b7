"""What the demo shows while it runs: a live table on a terminal, one line per change elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nptwatch.cli.history_table import full_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from nptwatch.store.records import HistoryRow

STYLES = {
    "POOR": "red",
    "FAIR": "yellow",
    "GOOD": "green",
    "EXCELLENT": "bold green",
    "INVALID": "bold red",
    "UNLOADABLE": "bold red",
    "failed": "bold red",
    "leased": "cyan",
}
AROUND_ROWS = 9
"""Terminal lines that are no checkpoints: header, title, rules, cursor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far training is, by its own log.

    Attributes:
        loss: the trainer's: MSE of the final hidden states.
    """

    step: int
    steps: int
    loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that is shown at one moment."""

    phase: str
    training: Progress | None = None
    rows: Sequence[HistoryRow] = ()
    alerts: int = 0


class Show(Protocol):
    """Shows one snapshot after the other."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *exc: object) -> None:
        """Leave the terminal as it was."""

    def update(self, snapshot: Snapshot) -> None:
        """Show it."""


def show_on(console: Console) -> Show:
    """Choose what the console can show."""
    redraws = console.is_terminal and not console.is_dumb_terminal
    return LiveShow(console) if redraws else LineShow(console)


class LiveShow:
    """A table that is redrawn; gone when it ends, for the history is printed then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Clear what was drawn."""
        self._live.stop()

    def update(self, snapshot: Snapshot) -> None:
        """Draw anew; the newest checkpoints where a terminal is too low for all."""
        fitting = max(1, self._console.height - AROUND_ROWS)
        rows = snapshot.rows[-fitting:]
        hidden = len(snapshot.rows) - len(rows)
        self._live.update(Group(_header(snapshot, hidden), checkpoint_table(rows)))


class LineShow:
    """A line for each change: for a pipe, a file, a CI log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._shown: dict[tuple[str, str | None], str] = {}

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to clear."""

    def update(self, snapshot: Snapshot) -> None:
        """Print what is not as it was."""
        if snapshot.phase != self._phase:
            self._phase = snapshot.phase
            self._print(f"{self._phase} ...")
        for row in snapshot.rows:
            # a path may hold one content after the other (best/)
            key, line = (row.path, row.fingerprint), row_line(row)
            if self._shown.get(key) != line:
                self._shown[key] = line
                self._print(line)

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)
        self._console.file.flush()


def row_line(row: HistoryRow) -> str:
    """Say in one line how it stands with a checkpoint."""
    cells = [name_of(row), row.state]
    if row.mse is not None and row.cosine is not None:
        cells += [f"MSE {row.mse:.4f}", f"cosine {row.cosine:.4f}"]
    cells.append(row.grade or "")
    if full := full_text(row):
        cells.append(f"full: {full} ({row.full_because})")
    return "  ".join(cells).rstrip()


def name_of(row: HistoryRow) -> str:
    """Give a checkpoint's folder name."""
    return Path(row.path).parent.name


def checkpoint_table(rows: Sequence[HistoryRow], *, also: bool = False) -> Table:
    """Make a table of checkpoints, the newest last.

    Args:
        also: with the other names of the same content.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("STEP", justify="right", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    table.add_column("MSE", justify="right", no_wrap=True)
    table.add_column("COSINE", justify="right", no_wrap=True)
    table.add_column("GRADE", no_wrap=True)
    table.add_column("FULL", no_wrap=True)
    if also:
        table.add_column("SAME CONTENT", no_wrap=True)
    for row in rows:
        cells: list[RenderableType] = [
            str(row.step) if row.step is not None else name_of(row),
            Text(row.state, style=STYLES.get(row.state, "")),
            _number(row.mse),
            _number(row.cosine),
            Text(row.grade or "-", style=STYLES.get(row.grade or "", "dim")),
            full_text(row) or "",
        ]
        if also:
            cells.append(Text(", ".join(Path(path).parent.name for path in row.also)))
        table.add_row(*cells)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _header(snapshot: Snapshot, hidden: int) -> RenderableType:
    lines = [Text(snapshot.phase, style="bold")]
    training = snapshot.training
    if training is not None:
        loss = "" if training.loss is None else f", its loss {training.loss:.4f}"
        lines.append(Text(f"  trainer   step {training.step} of {training.steps}{loss}"))
        measured = sum(row.grade is not None for row in snapshot.rows)
        counts = f"{len(snapshot.rows)} checkpoints found, {measured} measured"
        lines.append(Text(f"  daemon    {counts}, {snapshot.alerts} alerts delivered"))
    if hidden:
        lines.append(Text(f"  ({hidden} earlier checkpoints not shown)", style="dim"))
    return Group(*lines, Text())
