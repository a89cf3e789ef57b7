"""A worker among others: what it takes first, and what it cannot see."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
from integration.watching import archive

from nptwatch.npt.files import fingerprint
from nptwatch.service.build import open_stores, request_of
from nptwatch.settings import Settings, WorkerSettings
from nptwatch.store.labels import Offer
from nptwatch.store.records import JobState, SeenFile, WholeFile
from nptwatch.worker.diagnose import Diagnosis
from nptwatch.worker.offering import offer_by
from nptwatch.worker.outcomes import Close, HandBack
from nptwatch.worker.sight import BLIND_SECONDS, Sight
from nptwatch.worker.taking import Taking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nptwatch.store.records import Claim, Measured

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Seconds:
    """A monotonic clock that tests set."""

    now = 0.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now


class Unused:
    """A diagnoser that must not be asked."""

    device = "cpu"
    base_model = None

    def base_revision(self, claim: Claim) -> str:
        """Not here."""
        raise AssertionError(claim)

    def measure(self, claim: Claim, path: Path) -> Measured:
        """Not here."""
        raise AssertionError(claim, path)


class Host:
    """A claimed checkpoint below a root, and what a host's worker makes of it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(state_dir=folder / "state")
        self.root = folder / "root"
        self.run = self.root / "run1"
        self.weights = self.run / "checkpoint-100" / "npt_weights.pt"
        self.weights.parent.mkdir(parents=True)
        self.weights.write_bytes(archive("100"))
        (self.root / "run2").mkdir()
        self.stores = open_stores(self.settings, migrate=True)
        self.seconds = Seconds()
        self.claim = self._claimed()

    def _claimed(self) -> Claim:
        written = (NOW - timedelta(seconds=10)).timestamp()
        os.utime(self.weights, (written, written))
        seen = SeenFile(
            run_path=str(self.run),
            run_name="run1",
            root=str(self.root),
            path=str(self.weights),
            signature="1",
            mtime_ns=self.weights.stat().st_mtime_ns,
            size_bytes=1,
        )
        whole = WholeFile(
            file=seen, fingerprint=fingerprint(self.weights), step=100, base_model="base"
        )
        self.stores.catalog.admit(whole, request_of(self.settings))
        claim = self.stores.queue.claim("w", lease_seconds=60)
        assert claim is not None
        return claim

    def sight(self, *, shared: bool = False) -> Sight:
        """What the host sees."""
        return Sight(shared=shared, host="host-b", seconds=self.seconds)

    def outcome(self, sight: Sight, *, late_seconds: float = 0.0) -> object:
        """Diagnose the claim."""
        return Diagnosis(
            queue=self.stores.queue,
            diagnoser=Unused(),
            settings=WorkerSettings(),
            request=partial(request_of, self.settings),
            unloadable_after_seconds=5.0,
            sight=sight,
            clock=lambda: NOW + timedelta(seconds=late_seconds),
        ).of(self.claim)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Give a host."""
    host = Host(tmp_path)
    yield host
    host.stores.close()


@pytest.mark.parametrize("how", ["absent", "empty"])
def test_a_root_that_is_not_there_deletes_nothing(host: Host, how: str) -> None:
    """Not mounted, or not for us: back at once for others, and nothing below it is taken."""
    shutil.rmtree(host.root)
    if how != "absent":
        host.root.mkdir()
    sight = host.sight()
    outcome = host.outcome(sight)
    assert outcome == HandBack(
        event="not_seen_here",
        reason=f"host-b does not see {host.root}: mount it, or name its place in path_map there",
    )
    assert sight.blind == (str(host.root),)
    host.seconds.now += BLIND_SECONDS + 1
    assert sight.blind == ()


def test_a_run_that_is_not_there_deletes_nothing(host: Host) -> None:
    """A link may lead to a disk that only other hosts have; the watcher tells if it is gone."""
    shutil.rmtree(host.run)
    sight = host.sight()
    outcome = host.outcome(sight)
    assert isinstance(outcome, HandBack)
    assert outcome.event == "not_seen_here"
    assert sight.blind == (str(host.run),)


def test_a_file_missing_in_a_run_that_is_seen_is_deleted(host: Host) -> None:
    """As ever: rotated away."""
    host.weights.unlink()
    outcome = host.outcome(host.sight())
    assert isinstance(outcome, Close)
    assert outcome.state == JobState.DELETED


def test_a_file_that_another_host_keeps_is_left_to_it(host: Host) -> None:
    """The trainer's own is gone, but the content is not: only that host can measure it."""
    host.weights.unlink()
    host.claim = replace(host.claim, kept_by="host-a")
    outcome = host.outcome(host.sight())
    assert outcome == HandBack(
        event="not_seen_here", reason="only host-a has the file, which it keeps"
    )
    host.claim = replace(host.claim, kept_by="host-b")
    assert isinstance(host.outcome(host.sight()), Close)


def test_a_new_file_may_be_late_on_other_hosts(host: Host) -> None:
    """A network file system shows it there after a while; an old one is gone."""
    host.weights.unlink()
    sight = host.sight(shared=True)
    outcome = host.outcome(sight)
    assert isinstance(outcome, HandBack)
    assert (outcome.event, outcome.delay_seconds) == ("not_seen_yet", 30.0)
    assert sight.blind == ()
    assert isinstance(host.outcome(sight, late_seconds=200), Close)


def test_a_file_that_the_system_refuses_is_left_to_others(host: Host) -> None:
    """Not superseded: another host's user may be let in. A link that turns in circles is refused."""
    host.weights.unlink()
    host.weights.symlink_to(host.weights)
    sight = host.sight()
    outcome = host.outcome(sight)
    assert isinstance(outcome, HandBack)
    assert outcome.event == "not_readable_here"
    assert str(host.weights) in outcome.reason
    assert sight.blind == (str(host.run),)


def test_a_base_is_preferred_for_a_time(host: Host) -> None:
    """Then once what comes first is taken, and the time begins anew."""
    seconds = host.seconds
    taking = Taking(offer=Offer(), sight=host.sight(), keep_seconds=300, seconds=seconds)
    assert taking.preferred(None) is None
    assert taking.preferred("a") == "a"
    seconds.now = 299
    assert taking.preferred("a") == "a"
    seconds.now = 301
    assert taking.preferred("a") is None
    assert taking.preferred("a") is None  # nothing was there to be taken
    taking.took_first()
    assert taking.preferred("a") == "a"
    seconds.now = 600
    assert taking.preferred("b") == "b"  # another one was loaded
    seconds.now = 899
    assert taking.preferred("b") == "b"


def test_zero_seconds_prefer_nothing(host: Host) -> None:
    """Always what comes first."""
    taking = Taking(offer=Offer(), sight=host.sight(), keep_seconds=0, seconds=host.seconds)
    assert taking.preferred("a") is None


def test_what_is_not_seen_is_not_offered(host: Host) -> None:
    """The claim leaves it to others."""
    sight = host.sight()
    taking = Taking(offer=Offer(gpu_mib=1), sight=sight, keep_seconds=0)
    assert taking.offer == Offer(gpu_mib=1)
    shutil.rmtree(host.root)
    host.outcome(sight)
    assert taking.offer == Offer(gpu_mib=1, blind=(str(host.root),))


def test_a_cpu_is_bound_by_no_gpu_memory_unless_the_settings_say_so() -> None:
    """And bases are as in the settings."""
    bases = ("meta-llama/*",)
    assert offer_by(WorkerSettings(bases=bases), "cpu") == Offer(bases=bases)
    assert offer_by(WorkerSettings(gpu_memory_gib=1.5), "cpu") == Offer(gpu_mib=1536)
