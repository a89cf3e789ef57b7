"""What the demo says at its end: history, status, alerts, what to type next; or why it failed."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nptwatch.demo.children import DemoError
from nptwatch.demo.folder import RUN
from nptwatch.demo.show import checkpoint_table
from nptwatch.diagnostics.grading import Grade, at_least

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from nptwatch.demo.folder import DemoFolder
    from nptwatch.store.history import History
    from nptwatch.store.records import HistoryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The last page; arguments as for Demo."""

    folder: DemoFolder
    command: str
    cwd: Path
    console: Console

    def report(self, history: History, seconds: float) -> None:
        """Print what was recorded.

        Raises:
            DemoError: a checkpoint was not measured, GOOD was not reached, no full diagnostic
                followed, or no alert arrived.
        """
        rows = history.history(str(self.folder.run))
        self._table(rows)
        changes = reversed(history.changes(str(self.folder.run)))
        path = " -> ".join(f"{change.new} (step {change.step})" for change in changes)
        self._say()
        self._say(f"status: {path}")
        self._require_measured(rows)
        self._say_full(rows)
        self._say_alerts()
        self._say()
        self._say(f"Done in {seconds:.0f} s. The database is {self.near(self.folder.database)}.")
        self._say("Look around in it:")
        self._say()
        for line in self._next(Path(rows[0].path).parent):
            self._say(f"  {line}")

    def near(self, path: Path) -> str:
        """Write a path so that it can be typed from here."""
        if path.is_relative_to(self.cwd):
            path = path.relative_to(self.cwd)
        return shlex.quote(str(path))

    def _table(self, rows: Sequence[HistoryRow]) -> None:
        with self.console.capture() as captured:
            self.console.print(checkpoint_table(rows, also=True))
        for line in captured.get().splitlines():
            self.console.out(line.rstrip(), highlight=False)  # rich fills cells with spaces

    def _require_measured(self, rows: Sequence[HistoryRow]) -> None:
        bad = [f"{row.path}: {row.state} ({row.reason})" for row in rows if row.grade is None]
        bad += [
            f"{row.path}: full diagnostic {row.full_state}"
            for row in rows
            if row.full_state is not None and row.overall_status is None
        ]
        if bad:
            raise DemoError("checkpoints were not measured: " + "; ".join(bad))
        if not any(at_least(row.grade, Grade.GOOD) for row in rows):
            how = f"it ended {rows[-1].grade}" if rows else "no checkpoint was saved"
            raise DemoError(
                f"training did not reach GOOD: {how}; more --steps or another --seed may"
            )

    def _say_full(self, rows: Sequence[HistoryRow]) -> None:
        """Say how many full diagnostics the policy asked for, and why."""
        reasons = Counter(row.full_because for row in rows if row.overall_status is not None)
        if not reasons:
            raise DemoError(
                f"GOOD was reached but no full diagnostic followed: see {self.folder.daemon_log}"
            )
        why = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
        counts = f"{reasons.total()} of {len(rows)} checkpoints got the full one too"
        self._say(f"diagnostics: {counts} ({why})")

    def _say_alerts(self) -> None:
        if not self.folder.alerts.exists():
            raise DemoError(f"GOOD was reached but no alert: see {self.folder.daemon_log}")
        self._say()
        self._say(
            f"alerts, as they came to their command (kept in {self.near(self.folder.alerts)}):"
        )
        for told in self.folder.alerts.read_text(encoding="utf-8").splitlines():
            event = json.loads(told)
            for line in (f"{event['kind']}:", *event["text"].splitlines()):
                self._say(_wrapped(line))

    def _next(self, first: Path) -> Sequence[str]:
        config = f"--config {self.near(self.folder.config)}"
        final = self.near(self.folder.run / "checkpoints" / "final")
        return (
            f"{self.command} status {config}",
            f"{self.command} history {RUN} {config}",
            f"{self.command} best {RUN} {config}",
            f"{self.command} forecast {RUN} {config}",
            f"{self.command} show {final} {config}",
            f"{self.command} compare {self.near(first)} {final} {config}",
            f"{self.command} quick {final} {config}",
            f"{self.command} full {final} --detailed {config}",
        )

    def _say(self, text: str = "") -> None:
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)


def _wrapped(text: str) -> str:
    """Break a line at 78 columns, words and paths whole."""
    return textwrap.fill(
        text,
        width=78,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
