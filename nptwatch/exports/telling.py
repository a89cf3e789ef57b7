"""What an exporting process is told on its standard input, and what it answers.

The question may hold a secret; the answer goes into logs, so what others said is redacted in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nptwatch.alerts.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LOCK = ".lock"

LONGEST_WORDS = 300
"""Characters of an error that are kept."""

Point: TypeAlias = "Mapping[str, Any]"
"""A result as store/exporting.py has it, times in ISO 8601. Any: as JSON has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNews:
    """The next results of one run.

    Attributes:
        place: its file or folder below the export's folder, without an ending.
        history: tells it from another run, or another database's, of the same name.
        points: in the order in which they were recorded, which need not be that of their steps.
    """

    place: str
    history: str
    run: str
    run_path: str
    root: str
    status: str | None
    best_mse: float | None
    best_step: int | None
    points: tuple[Point, ...]

    def path(self, folder: Path, ending: str = "") -> Path:
        """Give its file or folder.

        Raises:
            ValueError: its name leads out of the export's folder.
        """
        parts = self.place.split("/")
        if not all(parts) or {".", ".."} & set(parts):
            raise ValueError(f"{self.place!r} is no name for a file")
        return folder.joinpath(*parts[:-1], parts[-1] + ending)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be exported, and where to.

    Attributes:
        folder: the export's.
        options: what else this kind of export is told.
        secret: its key, if it has one.
    """

    folder: Path
    options: Mapping[str, Any]  # Any: as JSON has it
    secret: str | None
    runs: tuple[RunNews, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of it.

    Attributes:
        errors: by place of the run in the question; who is not in it is exported.
    """

    errors: Mapping[int, str]


def told(question: Question, *, seconds: float) -> bytes:
    """Write a question.

    Args:
        seconds: the process ends itself then, also where nobody is left to end it.
    """
    content = {
        "folder": str(question.folder),
        "options": question.options,
        "secret": question.secret,
        "seconds": seconds,
        "runs": [{name: getattr(run, name) for name in RunNews.__slots__} for run in question.runs],
    }
    return json.dumps(content).encode()


def understood(said: str) -> Answer | None:
    """Read an answer; None: it is none."""
    try:
        answer = json.loads(said)
        return Answer(errors={int(place): str(why) for place, why in answer["errors"].items()})
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def speak(export: Callable[[Question, RunNews], None], *, package: str | None = None) -> int:
    """Read the question, export run by run, and answer: the `main` of an exporting process.

    Args:
        package: what `export` imports, and so the extra that brings it.
    """
    content = json.loads(sys.stdin.buffer.read())
    signal.setitimer(signal.ITIMER_REAL, content["seconds"])
    question = Question(
        folder=Path(content["folder"]),
        options=content["options"],
        secret=content["secret"],
        runs=tuple(RunNews(**run) for run in content["runs"]),
    )
    out = os.dup(1)
    os.dup2(2, 1)  # libraries may print: the answer must stand alone
    errors = {}
    with _alone(question.folder):
        for place, run in enumerate(question.runs):
            try:
                export(question, run)
            except ImportError as error:
                errors[place] = missing(package) if package else str(error)
            except Exception as error:  # noqa: BLE001 - outermost: whatever breaks is an answer
                errors[place] = _words(error, question.secret)
    with open(out, "w", encoding="utf-8") as answer:  # noqa: PTH123 - a descriptor
        json.dump({"errors": _few(errors)}, answer)
    return 0


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process exports there: one may have outlived its daemon."""
    with (folder / LOCK).open("ab") as lock:
        with suppress(OSError):  # a file system without locks: then the claims must do
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def missing(package: str) -> str:
    """Say what to do where a package is not installed."""
    return f"the package {package} is missing or broken: pip install 'nptwatch[{package}]'"


def _words(error: Exception, secret: str | None) -> str:
    """One line, without control characters, cut after the secret is gone."""
    theirs = redacted(str(error), [secret] if secret else [])
    theirs = re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", theirs).strip()
    words = f"{type(error).__name__}: {theirs}" if theirs else type(error).__name__
    return words if len(words) <= LONGEST_WORDS else f"{words[:LONGEST_WORDS]}..."


def _few(errors: Mapping[int, str]) -> dict[int, str]:
    """Say only the first error in words: of the answer, only its end is read."""
    return {place: why if n == 0 else "" for n, (place, why) in enumerate(errors.items())}
