"""A process that appends results to a file for each run, a line of JSON for each result.

Run as `python -m nptwatch.exports.to_jsonl`; see exporter.py. The file itself says how far it is,
so that no line is written twice: neither after a crash nor by a second daemon.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, TYPE_CHECKING

from nptwatch.exports.telling import Question, RunNews, speak

if TYPE_CHECKING:
    from nptwatch.exports.telling import Point

BLOCK_BYTES = 64 * 1024


def export(question: Question, run: RunNews) -> None:
    """Append what the run's file does not hold yet."""
    path = run.path(question.folder, ".jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        held = _ordinal(_last_line(file), run.history)
        lines = [_line(run, point) for point in run.points if point["ordinal"] > held]
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())


def _line(run: RunNews, point: Point) -> bytes:
    about = {"run": run.run, "run_path": run.run_path, "history": run.history}
    return json.dumps({**about, **point}).encode() + b"\n"


def _last_line(file: IO[bytes]) -> bytes:
    """Give the last whole line, and cut off what a killed writer left behind it."""
    start = file.seek(0, os.SEEK_END)
    tail = b""
    while start and tail.count(b"\n") < 2:  # noqa: PLR2004 - the line's end, and the one before
        size = min(BLOCK_BYTES, start)
        start = file.seek(start - size)
        tail = file.read(size) + tail
    whole = tail[: tail.rfind(b"\n") + 1]
    file.seek(start + len(whole))
    file.truncate()
    return whole.rstrip(b"\n").rpartition(b"\n")[2]


def _ordinal(line: bytes, history: str) -> int:
    """Give how far a file is that ends with this line; 0 where the line is of another history."""
    try:
        last = json.loads(line)
        return int(last["ordinal"]) if last["history"] == history else 0
    except (ValueError, TypeError, LookupError):
        return 0


if __name__ == "__main__":
    sys.exit(speak(export))
