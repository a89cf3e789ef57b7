"""How far a measurement is: a bar on a terminal, a line for each checkpoint elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

BAR_WIDTH = 16


class Progress(Protocol):
    """Is told what happens."""

    def say(self, text: str) -> None:
        """Print a line that stays."""

    def begin(self, file: Path) -> None:
        """A checkpoint is taken in hand."""

    def doing(self, what: str) -> None:
        """Name what is being done with it."""

    def end(self, file: Path) -> None:
        """It is measured, or cannot be."""


class LineProgress:
    """A line for each of several checkpoints.

    Args:
        total: how many there are; of a single one nothing is said.
    """

    def __init__(self, total: int = 1) -> None:
        self._total = total
        self._ended = 0

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def begin(self, file: Path) -> None:
        """Nothing is said before there is a result."""

    def doing(self, what: str) -> None:
        """A pipe has no line to overwrite."""

    def end(self, file: Path) -> None:
        """Count it."""
        self._ended += 1
        if self._total > 1:
            self.say(f"measured {self._ended}/{self._total} {file}")


class BarProgress:
    """A bar that names the checkpoint in hand and what is done with it; gone at the end."""

    def __init__(self, bar: RichProgress, task: TaskID) -> None:
        self._bar = bar
        self._task = task
        self._name = ""

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def begin(self, file: Path) -> None:
        """Name it."""
        self._name = file.parent.name
        self.doing("reading")

    def doing(self, what: str) -> None:
        """Name what is being done with it."""
        # at once: what follows may keep the thread that draws from running
        self._bar.update(self._task, description=f"{self._name}: {what}", refresh=True)

    def end(self, file: Path) -> None:  # noqa: ARG002 - it was named before
        """Move the bar on."""
        self._bar.advance(self._task)


@contextmanager
def progress_of(total: int) -> Iterator[Progress]:
    """Show the progress of so many checkpoints on standard error."""
    if not sys.stderr.isatty():
        yield LineProgress(total)
        return
    # rich takes a while to import: only where it is seen
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    what = TextColumn(
        "{task.description}",
        markup=False,
        table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
    )
    how_far = [BarColumn(BAR_WIDTH), MofNCompleteColumn()] if total > 1 else []
    columns = (*how_far, TimeElapsedColumn(), what)
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        yield BarProgress(bar, bar.add_task("", total=total))
