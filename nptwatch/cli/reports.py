"""What `quick` and `full` do with their reports: print, tabulate, write."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nptwatch.cli.screen import Screen
from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import FrameType

    from nptwatch.diagnostics.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Tells what was measured, whatever ends the measuring: the last, an error, a signal.

    Attributes:
        total: how many checkpoints there are to measure.
        text: one report -> text; takes whether emoji can be shown.
        table: several reports -> a row each.
        each: print the text of each of several too, above the table.
    """

    total: int
    text: Callable[[Report, bool], str]
    table: Callable[[Sequence[Report], Screen], None]
    each: bool
    as_json: bool
    output: Path | None

    def tell(self, measured: Iterable[Report]) -> list[Report]:
        """Measure all, write and print; after Ctrl-C or an error, what there is so far.

        Raises:
            ConfigError: --output names a file that cannot be written.
        """
        self._require_output()
        taken: list[Report] = []
        try:
            with _unwinding():
                for report in measured:
                    taken.append(report)  # noqa: PERF402 - what was taken before an error counts
        except BaseException:
            if self.total > 1:
                _say(f"stopped: {len(taken)} of {self.total} checkpoints were measured")
            raise
        finally:
            if taken:
                self._tell(taken)
        return taken

    def _tell(self, taken: list[Report]) -> None:
        content = taken if self.total > 1 else taken[0]
        try:
            self._write(content)
        finally:
            self._print(taken, content)

    def _require_output(self) -> None:
        """Refuse at once what would be found out after minutes of measuring."""
        if self.output is None:
            return
        into = self.output if self.output.exists() else self.output.parent
        if self.output.is_dir() or not os.access(into, os.W_OK):
            why = "no such folder" if not into.exists() else "no file that could be written"
            raise ConfigError(f"cannot write {self.output}: {why}")

    def _write(self, content: Report | list[Report]) -> None:
        if self.output is None:
            return
        try:
            self.output.write_text(json.dumps(content, indent=2) + "\n")
        except OSError as exc:
            raise ConfigError(f"cannot write {self.output}: {exc.strerror}") from exc
        _say(f"report written to {self.output}")

    def _print(self, taken: list[Report], content: Report | list[Report]) -> None:
        if self.as_json:
            print(json.dumps(content, indent=2))
            return
        screen = Screen.of_stdout()
        if self.total == 1 or self.each:
            for report in taken:
                self._print_text(report, screen)
        if self.total > 1:
            self.table(taken, screen)

    def _print_text(self, report: Report, screen: Screen) -> None:
        if report["diagnostic"]["status"] == "error":
            return  # said on stderr already
        text = self.text(report, screen.width is not None and screen.unicode)
        encoding = sys.stdout.encoding or "utf-8"  # generated texts hold any character
        screen.say(text.encode(encoding, "backslashreplace").decode(encoding).rstrip("\n"))
        if self.total > 1:
            screen.say()


def names_of(reports: Sequence[Report]) -> list[str]:
    """Name checkpoints by their folders, with as much of the path as tells them apart."""
    files = [Path(report["checkpoint"]).absolute() for report in reports]
    folders = [file.parent for file in files]
    # several files in one folder are told apart by their own names
    shown = folders if len(set(folders)) == len(folders) else files
    above = Path(os.path.commonpath(folders))
    return [
        str(path.relative_to(above)) if path != above else folder.name
        for path, folder in zip(shown, folders, strict=True)
    ]


@contextmanager
def _unwinding() -> Iterator[None]:
    """End as after Ctrl-C when a time limit or a closed terminal asks for it."""
    # what is ignored stays so: nohup
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
