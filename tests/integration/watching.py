"""Shared by the watcher's tests: checkpoints on disk, a writer process, a watcher on a thread."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nptwatch import filesystem
from nptwatch.settings import WatchSettings
from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.migrate import upgrade
from nptwatch.store.records import Admission, FileState, Request
from nptwatch.watch import listings, watcher
from nptwatch.watch.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import pytest

    from nptwatch.store.records import KnownFile, SeenFile, WholeFile

Logs: TypeAlias = "Sequence[Mapping[str, Any]]"
"""Log events, as the fixture gives them."""

GOLDEN_RUN = Path(__file__).parents[1] / "data/golden/run/experiments/equivalence"
REQUEST = Request(profile="quick", settings_hash="h1")


def archive(seed: str, *, kilobytes: int = 8) -> bytes:
    """Make bytes of an archive as torch.save writes it: stored members, content by seed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr("npt_weights/data.pkl", b"\x80\x02}.")
        file.writestr("npt_weights/data/0", (seed.encode() * 1024 * kilobytes)[: kilobytes * 1024])
        file.writestr("npt_weights/version", b"3\n")
    return buffer.getvalue()


def checkpoint(run: Path, name: str, *, seed: str | None = None, state: bool = True) -> Path:
    """Write a checkpoint as trainers do: weights, then training state; plain writes."""
    folder = run / "checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "npt_weights.pt"
    weights.write_bytes(archive(seed or f"{run.name}/{name}"))
    if state:
        shutil.copyfile(
            GOLDEN_RUN / "checkpoints/checkpoint-300/training_state.pt",
            folder / "training_state.pt",
        )
    return weights


def until(condition: Callable[[], object], *, seconds: float = 10.0) -> float:
    """Wait until a condition holds; return how long it took (seconds)."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "the condition did not come true in time"
        time.sleep(0.01)
    return time.monotonic() - start


def logged(logs: Logs, event: str, *, times: int = 1) -> None:
    """Wait until an event was logged so often."""
    until(lambda: sum(entry["event"] == event for entry in list(logs)) >= times)


class Writer:
    """The trainer process, with its pipe."""

    def __init__(self, data: bytes, target: Path, *, chunks: int = 4) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        source = target.parent / ".source"
        source.write_bytes(data)
        script = Path(__file__).with_name("trainer.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(source), str(target), str(chunks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said()

    def said(self) -> str:
        """Wait for the process to say that a piece is written."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> str:
        """Let it write the next piece and wait until it has."""
        self.poke()
        return self.said()

    def poke(self) -> None:
        """Let it write the next piece."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> None:
        """Let it write all that is left."""
        while self.go_on() != "done":
            pass
        self.close()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def writing(data: bytes, target: Path, *, chunks: int = 4) -> Iterator[Writer]:
    """Have a trainer process write a file; it has written the first piece."""
    writer = Writer(data, target, chunks=chunks)
    try:
        yield writer
    finally:
        writer.close()


def settings(*roots: Path, **changes: object) -> WatchSettings:
    """Build settings with short times."""
    values: dict[str, object] = {
        "roots": roots,
        "settle_seconds": 0.2,
        "rescan_seconds": 60.0,
        "unloadable_after_seconds": 60.0,
    }
    return WatchSettings.model_validate(values | changes)


NFS_MAGIC = 0x6969


def have_nfs(*folders: Path, patch: pytest.MonkeyPatch) -> None:
    """Have statfs say that folders are on NFS, with what is below them."""
    real = filesystem.statfs_kind

    def statfs_kind(path: str) -> int:
        """Be statfs."""
        return NFS_MAGIC if any(Path(path).is_relative_to(f) for f in folders) else real(path)

    patch.setattr(filesystem, "statfs_kind", statfs_kind)


def kind_of_observer(kind: str, experiments: Path, patch: pytest.MonkeyPatch) -> dict[str, object]:
    """Give settings of a kind of wake-up: inotify, none (scans only), polling.

    Polled is what statfs says to be on NFS: no event is asked for, nor comes. Where scans are all,
    what they find goes to rest at once, and is taken in by small portions.
    """
    if kind == "none":
        patch.setattr(listings, "SETTLED_NS", 10_000_000)
        patch.setattr(watcher, "PORTION", 4)
        return {"observer": "none", "rescan_seconds": 0.3}
    if kind == "polling":
        have_nfs(experiments, patch=patch)
        return {"poll_min_seconds": 0.2, "poll_max_seconds": 0.5}
    return {"observer": kind}


@contextmanager
def spied_catalog(folder: Path) -> Iterator[Spy]:
    """Open a real catalog on a new SQLite database, with a spy before it."""
    database = Database(f"sqlite:///{folder / 'nptwatch.db'}")
    upgrade(database)
    try:
        yield Spy(Catalog(database))
    finally:
        database.close()


class Spy:
    """Passes everything on to a catalog and remembers it."""

    def __init__(self, inner: Catalog) -> None:
        self.inner = inner
        self.admitted: list[tuple[WholeFile, Admission]] = []
        self.notes: list[tuple[str, FileState, str]] = []
        self.deleted: list[str] = []
        self.broken: Exception | None = None

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def known_among(self, paths: Collection[str]) -> dict[str, KnownFile]:
        """Pass on."""
        self._check()
        return self.inner.known_among(paths)

    def unseen(self, root: str, is_seen: Callable[[str], bool]) -> list[str]:
        """Pass on."""
        self._check()
        return self.inner.unseen(root, is_seen)

    def note(self, file: SeenFile, state: FileState, reason: str) -> None:
        """Pass on and remember."""
        self._check()
        self.inner.note(file, state, reason)
        self.notes.append((file.path, state, reason))

    def admit_all(self, wholes: Sequence[WholeFile], request: Request) -> list[Admission]:
        """Pass on and remember."""
        self._check()
        admissions = self.inner.admit_all(wholes, request)
        self.admitted.extend(zip(wholes, admissions, strict=True))
        return admissions

    def gone(self, paths: Collection[str]) -> int:
        """Pass on and remember."""
        self._check()
        closed = self.inner.gone(paths)
        self.deleted.extend(paths)
        return closed

    def queued(self) -> list[str]:
        """Return the paths for which a job was made, in order."""
        return [w.file.path for w, admission in self.admitted if admission is Admission.QUEUED]

    def state_of(self, path: Path) -> FileState | None:
        """Return the state last stored for a path."""
        row = self.inner.known_among([str(path)]).get(str(path))
        return None if row is None else row.state


@contextmanager
def watching(
    catalog: object, config: WatchSettings, state: Path, request: Request = REQUEST
) -> Iterator[Watcher]:
    """Run a watcher on a thread; it must end promptly and without an exception."""
    watcher = Watcher(catalog=catalog, request=request, settings=config, canary_dir=state)
    stop = threading.Event()
    faults: list[BaseException] = []

    def body() -> None:
        try:
            watcher.run(stop)
        except BaseException as exc:  # noqa: BLE001 - handed to the test
            faults.append(exc)

    thread = threading.Thread(target=body, name="test-watcher")
    thread.start()
    try:
        yield watcher
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive(), "the watcher did not stop"
        assert not faults, faults
