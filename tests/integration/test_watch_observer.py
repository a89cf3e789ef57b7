"""The observer goes deaf for real: checkpoints still arrive, and it is built anew."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest
import watching as w
from watchdog.utils import BaseThread
from watching import Spy, checkpoint, settings, until, watching

from nptwatch.watch.emitter import FolderEmitter
from nptwatch.watch.mailbox import Mailbox
from nptwatch.watch.observer import WatchdogObserver, make_observer
from nptwatch.watch.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from watchdog.observers.api import BaseObserver


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An experiments folder."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    return folder


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Spy]:
    """A catalog on SQLite that remembers what it was told."""
    with w.spied_catalog(tmp_path / "state") as spy:
        yield spy


class Bench:
    """An observer under test, with the observers that it made."""

    def __init__(self, tmp_path: Path, root: Path) -> None:
        self.made: list[BaseObserver] = []
        self.mailbox = Mailbox()
        self.root = root
        self.observer = WatchdogObserver(
            make=self.make,
            mailbox=self.mailbox,
            canary_dir=tmp_path / "state",
            is_of_interest=lambda name: name.endswith(".pt"),
            canary_seconds=0.5,
        )

    def make(self) -> BaseObserver:
        """Make an observer and keep it."""
        self.made.append(make_observer())
        return self.made[-1]

    def hears(self, seconds: float = 1.0) -> bool:
        """Say whether a new file makes a hint."""
        self.mailbox.take()
        (self.root / f"{time.monotonic_ns()}.pt").write_bytes(b"x")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if str(self.root) in self.mailbox.take().folders:
                return True
            time.sleep(0.01)
        return False

    def check_until_rebuilt(self) -> None:
        """Check as the watcher does, until there is another observer."""
        before = len(self.made)

        def rebuilt() -> bool:
            self.observer.send_canary()
            self.observer.check([str(self.root)])
            return len(self.made) > before

        until(rebuilt)


@pytest.fixture
def bench(tmp_path: Path, root: Path) -> Iterator[Bench]:
    """A started observer on the root."""
    bench = Bench(tmp_path, root)
    bench.observer.start([str(root)])
    yield bench
    bench.observer.stop()


def emitter_of(observer: BaseObserver) -> FolderEmitter:
    """Give the thread that reads inotify."""
    (emitter,) = observer.emitters
    assert isinstance(emitter, FolderEmitter)
    return emitter


def end_inotify_thread(observer: BaseObserver) -> None:
    """Make an exception end the thread that reads inotify, as watchdog's own defect does."""

    def fail(*_event: object) -> None:
        message = "as in watchdog's own defect"
        raise KeyError(message)

    emitter_of(observer)._take = fail


def mute_inotify(observer: BaseObserver) -> None:
    """Have the living thread read every event and tell nobody."""
    emitter_of(observer)._take = lambda *_event: None


def watchdog_threads() -> list[threading.Thread]:
    """List the threads that watchdog runs, ours as its emitter among them."""
    return [t for t in threading.enumerate() if isinstance(t, BaseThread)]


def test_healthy_observer_is_left_alone(bench: Bench) -> None:
    """With the canary heard, nothing is rebuilt."""
    for _ in range(4):
        bench.observer.send_canary()
        time.sleep(0.55)
        bench.observer.check([str(bench.root)])
    assert len(bench.made) == 1
    assert bench.hears()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_dead_inotify_thread_is_noticed(
    bench: Bench, root: Path, logs: list[dict[str, object]]
) -> None:
    """A thread ended by an exception leaves the observer alive; it is rebuilt and hears."""
    end_inotify_thread(bench.made[0])
    (root / "trigger.pt").write_bytes(b"x")
    until(lambda: not emitter_of(bench.made[0]).is_alive())
    assert bench.made[0].is_alive()
    assert not bench.hears()
    bench.check_until_rebuilt()
    assert bench.hears()
    rebuilt = [e for e in logs if e["event"] == "observer_rebuilt"]
    assert "thread ended" in str(rebuilt[0]["reason"])


def test_deaf_observer_with_living_threads_is_noticed_by_the_canary(
    bench: Bench, root: Path, logs: list[dict[str, object]]
) -> None:
    """Every thread lives, no event comes: the canary tells."""
    mute_inotify(bench.made[0])
    assert not bench.hears()
    assert all(thread.is_alive() for thread in watchdog_threads())
    bench.check_until_rebuilt()
    assert bench.hears()
    assert "canary" in str(next(e for e in logs if e["event"] == "observer_rebuilt")["reason"])


def test_deleted_and_recreated_root_is_heard_again(bench: Bench, root: Path) -> None:
    """The kernel's watch ends with it; the new folder is watched, and told of."""
    root.rmdir()
    time.sleep(0.2)
    root.mkdir()
    until(lambda: bench.observer.check([str(root)]) == [str(root)])
    assert bench.hears()
    assert len(bench.made) == 1


def test_rebuilds_leave_no_threads_behind(bench: Bench) -> None:
    """Old observers are really stopped."""
    count = len(watchdog_threads())
    for n in range(4):
        bench.observer.suspect(f"test {n}")
        bench.observer._not_before = 0.0
        bench.check_until_rebuilt()
    until(lambda: len(watchdog_threads()) <= count)


def test_rebuilds_back_off(bench: Bench) -> None:
    """A file system that never sends events does not cause a rebuild at every check."""
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        bench.observer.suspect("no event came")
        bench.observer.check([str(bench.root)])
        time.sleep(0.05)
    assert 2 <= len(bench.made) <= 4


def test_watch_limit_is_explained_and_survived(
    tmp_path: Path, root: Path, logs: list[dict[str, object]]
) -> None:
    """Where inotify has reached its limit the log says how to raise it; scans go on."""

    def refuse() -> BaseObserver:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    observer = WatchdogObserver(
        make=refuse,
        mailbox=Mailbox(),
        canary_dir=tmp_path / "state",
        is_of_interest=lambda _name: True,
    )
    observer.start([str(root)])
    observer.check([str(root)])
    observer.stop()
    assert observer.heard_since() is None
    warning = next(e for e in logs if e["event"] == "observer_unavailable")
    assert "max_user_instances" in str(warning["fix"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("way", [end_inotify_thread, mute_inotify])
def test_every_checkpoint_arrives_while_the_observer_is_deaf(
    catalog: Spy, tmp_path: Path, root: Path, logs: list[dict[str, object]], way: object
) -> None:
    """With the observer deaf the scans find each checkpoint; it is rebuilt, and events wake again."""
    config = settings(root, rescan_seconds=1.5, settle_seconds=0.1)
    with watching(catalog, config, tmp_path / "state") as watcher:
        checkpoint(root / "run", "checkpoint-1")
        until(lambda: len(catalog.queued()) == 1)
        assert callable(way)
        way(watcher._waking.events._observer)
        for step in range(2, 12):
            checkpoint(root / "run", f"checkpoint-{step}")
        until(lambda: len(catalog.queued()) == 11)
        until(lambda: any(e["event"] == "observer_rebuilt" for e in logs), seconds=20)
        time.sleep(0.3)
        checkpoint(root / "run", "checkpoint-99")
        until(lambda: len(catalog.queued()) == 12, seconds=3)
    assert len(set(catalog.queued())) == 12


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_rotation_churn_loses_no_checkpoint(catalog: Spy, tmp_path: Path, root: Path) -> None:
    """The rename and rmtree pattern that has killed released versions; all that stays is queued."""
    config = settings(root, rescan_seconds=1.0, settle_seconds=0.1)
    with watching(catalog, config, tmp_path / "state"):
        checkpoints = root / "run/checkpoints"
        for n in range(300):
            checkpoint(root / "run", "last.tmp", seed=str(n), state=False)
            shutil.rmtree(checkpoints / "last", ignore_errors=True)
            (checkpoints / "last.tmp").rename(checkpoints / "last")
        kept = [str(checkpoint(root / f"run{n}", "checkpoint-1")) for n in range(20)]
        last = str(checkpoints / "last/npt_weights.pt")
        until(lambda: {*kept, last} <= set(catalog.queued()), seconds=20)
        assert catalog.state_of(checkpoints / "last/npt_weights.pt") == "whole"


def test_nothing_is_written_below_the_roots(catalog: Spy, tmp_path: Path, root: Path) -> None:
    """The canary lives in nptwatch's own folder; the trainer's folders are only read."""
    checkpoint(root / "run", "checkpoint-1")
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")} | {root: root.stat().st_mtime_ns}
    with watching(catalog, settings(root, rescan_seconds=0.2), tmp_path / "state"):
        until(catalog.queued)
        time.sleep(0.5)
    after = {p: p.stat().st_mtime_ns for p in root.rglob("*")} | {root: root.stat().st_mtime_ns}
    assert after == before
    assert (tmp_path / "state/watch-canary").exists()


def test_idle_watcher_uses_hardly_any_time(catalog: Spy, tmp_path: Path, root: Path) -> None:
    """With nothing to do the watcher takes less than a hundredth of a core."""
    checkpoint(root / "run", "checkpoint-1")
    watcher = Watcher(
        catalog=catalog, request=w.REQUEST, settings=settings(root), canary_dir=tmp_path / "state"
    )
    used: list[float] = []
    stop = threading.Event()

    def body() -> None:
        start = time.thread_time()
        watcher.run(stop)
        used.append(time.thread_time() - start)

    thread = threading.Thread(target=body)
    thread.start()
    until(catalog.queued)
    stop.wait(4.0)
    stop.set()
    thread.join(5)
    assert used[0] < 0.04 + 0.04  # start, scan and admission included
