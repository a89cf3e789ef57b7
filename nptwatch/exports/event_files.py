"""Log directories as TensorBoard reads them right, whatever order the steps come in.

TensorBoard's data server takes a step that is not larger than the one before for a restart, and
forgets all points from it on. So a file is in step order: what comes in order is appended; what
comes late has the file written anew, merged, under a name that sorts behind the old one, where a
TensorBoard that is open goes on reading, from the first step. The old one is left empty for a
while: TensorBoard's slow loader (--load_fast=false) never leaves a file that is gone.
"""

from __future__ import annotations

import os
import re
import struct
import time
from typing import TYPE_CHECKING, TypeAlias

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Points: TypeAlias = dict[int, tuple[float, dict[str, float]]]
"""By step: when it was measured, in seconds since 1970, and the numbers by name."""

NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.nptwatch\.(\d{6})")
"""Seconds since 1970 and a number: names sort as the files were made."""

MAKING = ".making"
"""What is being written; TensorBoard reads no file of this name."""

KEEP_SECONDS = 3600.0
"""How long a file that was written anew elsewhere stays, empty."""

HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
"""Around each record: its length and a sum of that; a sum of its bytes."""


class LogDirectory:
    """A run's directory; its last event file has all points, and is what is known of earlier ones.

    Args:
        folder: made when there is something to write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, new: Points) -> None:
        """Add points; those of a step that is there already count from now on."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = self._folder.iterdir()
        files = sorted(path for path in found if NAME.fullmatch(path.name))
        last = files[-1] if files else None
        held, is_whole = _read(last) if last else ({}, False)
        if last and is_whole and held and min(new) > max(held):
            _append(last, _events(new))
            files.pop()
        else:
            self._write_anew(last, _merged(held, new))
        for path in files:
            _retire(path)

    def _write_anew(self, last: Path | None, points: Points) -> None:
        """Put all points into a new file that takes the place of the last one."""
        now = time.time()
        making = self._folder / MAKING
        making.unlink(missing_ok=True)
        # who has read an older file up to here begins again
        restart = SessionLog(status=SessionLog.START)
        head = [
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=min(points), session_log=restart),
        ]
        _append(making, [*head, *_events(points)])
        making.replace(self._folder / _next_name(last, now))


def _retire(path: Path) -> None:
    """Empty a file whose points are all in a later one; remove it in due time."""
    seen = path.stat()
    if seen.st_size:
        os.truncate(path, 0)
    elif seen.st_mtime < time.time() - KEEP_SECONDS:
        path.unlink(missing_ok=True)


def _merged(held: Points, new: Points) -> Points:
    merged = dict(held)
    for step, (measured, values) in new.items():
        _, before = held.get(step, (0.0, {}))
        merged[step] = measured, before | values
    return merged


def _events(points: Points) -> Iterable[Event]:
    """Give events in step order."""
    for step, (measured, values) in sorted(points.items()):
        curves = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        yield Event(wall_time=measured, step=step, summary=Summary(value=curves))


def _read(path: Path) -> tuple[Points, bool]:
    """Read a file up to what a killed writer left half; also say whether it is whole."""
    content, start = path.read_bytes(), 0
    points: Points = {}
    while start + HEADER.size <= len(content):
        length, _ = HEADER.unpack_from(content, start)
        end = start + HEADER.size + length
        if end + FOOTER.size > len(content):
            break
        try:
            event = Event.FromString(content[start + HEADER.size : end])
        except ValueError:  # protobuf's DecodeError is one
            break
        if event.HasField("summary"):
            values = {value.tag: value.simple_value for value in event.summary.value}
            points[event.step] = event.wall_time, values
        start = end + FOOTER.size
    return points, start == len(content)


def _append(path: Path, events: Iterable[Event]) -> None:
    with path.open("ab") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()
        os.fsync(file.fileno())


def _next_name(last: Path | None, now: float) -> str:
    """Give a name that sorts behind the last one, whatever the clock says."""
    found = NAME.fullmatch(last.name) if last else None
    seconds, number = (int(found[1]), int(found[2]) + 1) if found else (0, 0)
    return f"events.out.tfevents.{max(int(now), seconds):010d}.nptwatch.{number:06d}"
