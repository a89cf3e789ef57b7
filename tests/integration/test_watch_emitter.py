"""inotify on folders one by one: what comes below them is heard, what is not asked for is not."""

from __future__ import annotations

import ctypes
import errno
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver
from watching import until

from nptwatch.watch import emitter as emitter_module
from nptwatch.watch.emitter import FolderEmitter
from nptwatch.watch.mailbox import Mailbox
from nptwatch.watch.observer import WatchdogObserver, make_observer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchdog.events import FileSystemEvent


class Ears(FileSystemEventHandler):
    """An observer of one folder, and what it heard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[str] = []
        self.marks: set[str] = set()
        self.observer = BaseObserver(FolderEmitter)
        self.observer.schedule(self, str(folder))
        self.observer.start()
        (emitter,) = self.observer.emitters
        assert isinstance(emitter, FolderEmitter)
        self.emitter = emitter

    def dispatch(self, event: FileSystemEvent) -> None:
        """Remember a path, with its folder by a slash."""
        path = Path(str(event.src_path)).relative_to(self.folder)
        self.heard.append(f"{path}{'/' if event.is_directory else ''}")

    def write(self, path: str) -> None:
        """Write a file."""
        (self.folder / path).write_bytes(b"x")

    def since(self, path: str) -> set[str]:
        """Write a file that is heard of in any case; give what was heard before it and since."""
        self.marks.add(path)  # heard of twice: made, and closed
        self.write(path)
        until(lambda: path in self.heard)
        heard = set(self.heard) - self.marks
        self.heard.clear()
        return heard


@pytest.fixture
def ears(tmp_path: Path) -> Iterator[Ears]:
    """Ears at an empty folder."""
    ears = Ears(tmp_path)
    yield ears
    ears.observer.stop()
    ears.observer.join(5)
    assert not ears.emitter.is_alive()


def test_a_file_deep_in_new_folders_is_heard(ears: Ears) -> None:
    """Each folder is added before anybody is told of it, with those that are in it by then."""
    for n in range(50):
        (ears.folder / f"a{n}/b/c").mkdir(parents=True)
        until(lambda n=n: str(ears.folder / f"a{n}/b/c") in ears.emitter._descriptors)
        ears.write(f"a{n}/b/c/file")
        until(lambda n=n: f"a{n}/b/c/file" in ears.heard)


def test_folders_are_heard_when_asked_for(tmp_path: Path) -> None:
    """Not those that were there before; one that is not there is left out."""
    (tmp_path / "run").mkdir()
    ears = Ears(tmp_path)
    folder = str(tmp_path / "run")
    ears.write("run/file")
    assert ears.since("mark") == set()
    assert ears.emitter.missing([folder]) == [folder]
    assert ears.emitter.hear([folder, "/nowhere/at/all"]) == [folder]
    assert ears.emitter.hear([folder]) == []
    ears.write("run/file2")
    until(lambda: "run/file2" in ears.heard)
    ears.observer.stop()


def test_what_is_ignored_is_silent_and_what_is_below_is_not(ears: Ears) -> None:
    """A stored checkpoint's folder needs no watch; the one above tells of its end."""
    (ears.folder / "run/checkpoint-1").mkdir(parents=True)
    inner = str(ears.folder / "run/checkpoint-1")
    until(lambda: inner in ears.emitter._descriptors)
    ears.since("mark")
    ears.emitter.ignore([inner])
    ears.write("run/checkpoint-1/file")
    assert ears.since("mark2") == set()
    shutil.rmtree(inner)
    until(lambda: "run/checkpoint-1/" in ears.heard)


def test_a_moved_folder_is_heard_under_its_new_name(ears: Ears) -> None:
    """With all below it, however often it moves; the old name is told of too."""
    (ears.folder / "name0/below").mkdir(parents=True)
    until(lambda: str(ears.folder / "name0/below") in ears.emitter._descriptors)
    for n in range(20):
        (ears.folder / f"name{n}").rename(ears.folder / f"name{n + 1}")
        until(lambda n=n: str(ears.folder / f"name{n + 1}/below") in ears.emitter._descriptors)
        ears.write(f"name{n + 1}/below/file{n}")
        until(lambda n=n: f"name{n + 1}/below/file{n}" in ears.heard)
        assert {f"name{n}/", f"name{n + 1}/"} <= set(ears.heard)
        assert str(ears.folder / f"name{n}/below") not in ears.emitter._descriptors


def test_a_lost_folder_is_known_to_be(ears: Ears) -> None:
    """One that is deleted and made anew behind the emitter's back can be asked for again."""
    folder = str(ears.folder / "run")
    Path(folder).mkdir()
    until(lambda: folder in ears.emitter._descriptors)
    ears.emitter.ignore([str(ears.folder)])  # so that nobody tells of it
    assert ears.emitter.missing([folder]) == []
    Path(folder).rmdir()
    until(lambda: ears.emitter.has_lost)
    assert ears.emitter.missing([folder]) == [folder]
    assert not ears.emitter.has_lost
    ears.emitter.hear([str(ears.folder)])


def test_events_that_the_kernel_threw_away_are_noticed(tmp_path: Path) -> None:
    """More came than its queue holds: everything is asked for anew."""
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queue > 100_000:
        pytest.skip(f"the kernel keeps {queue:,} events: too many to make here")
    root = tmp_path / "root"
    root.mkdir()
    mailbox = Mailbox()
    observer = WatchdogObserver(
        make=make_observer, mailbox=mailbox, canary_dir=tmp_path, is_of_interest=lambda _: True
    )
    observer.start([str(root)])
    first = observer._emitter
    assert first is not None
    with first._lock:  # its thread waits here with the first events
        for n in range(queue // 2 + 1000):
            (root / str(n)).touch()
    until(lambda: first.has_overflowed, seconds=30)
    mailbox.take()
    until(lambda: observer.check([str(root)]) == [] and observer._emitter is not first)
    assert mailbox.take().rescan
    observer.stop()


def test_too_few_watches_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, object]]
) -> None:
    """The log says what to raise, and no event is counted on."""
    real = emitter_module.inotify_add_watch

    def add_watch(descriptor: int, path: bytes, mask: int) -> int:
        if path.endswith(b"one-too-many"):
            ctypes.set_errno(errno.ENOSPC)
            return -1
        return real(descriptor, path, mask)

    monkeypatch.setattr(emitter_module, "inotify_add_watch", add_watch)
    observer = WatchdogObserver(
        make=make_observer, mailbox=Mailbox(), canary_dir=tmp_path, is_of_interest=lambda _: True
    )
    observer.start([str(tmp_path)])
    assert observer.heard_since() is not None
    observer.check([str(tmp_path), str(tmp_path / "one-too-many")])
    assert observer.heard_since() is None
    (entry,) = [e for e in logs if e["event"] == "observer_unavailable"]
    assert "max_user_watches" in str(entry["fix"])
    observer.stop()
    until(lambda: not [t for t in threading.enumerate() if isinstance(t, FolderEmitter)])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_an_emitter_that_cannot_start_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is tried again and again: each would hold an instance that nobody gives back."""

    def refuse(*_: object) -> int:
        ctypes.set_errno(errno.ENOSPC)
        return -1

    monkeypatch.setattr(emitter_module, "inotify_add_watch", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(OSError, match="No space left"):
            Ears(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_stopping_one_that_ended_writes_to_no_other_file(tmp_path: Path) -> None:
    """The numbers that it had open may belong to a database by then."""
    ears = Ears(tmp_path)
    ears.emitter.stop()
    ears.emitter.join(5)
    others = [(tmp_path / f"other{n}").open("wb") for n in range(8)]
    ears.observer.stop()
    ears.observer.join(5)
    for other in others:
        other.close()
    assert [path.stat().st_size for path in sorted(tmp_path.glob("other*"))] == [0] * 8
