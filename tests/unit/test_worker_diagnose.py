"""Which outcome a claimed job has, with real files and a real SQLite database."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
from integration.watching import archive
from stocking import no_alerts

from nptwatch.errors import (
    BaseModelError,
    CheckpointChangedError,
    CheckpointDeletedError,
    ConfigError,
    DeviceError,
    GpuBusyError,
    IncompleteCheckpointError,
    LayoutError,
    OutOfMemoryError,
    UnsafeCheckpointError,
)
from nptwatch.npt.files import check_crc, fingerprint
from nptwatch.service.build import open_stores, request_of
from nptwatch.settings import Settings, WorkerSettings
from nptwatch.store.records import JobState, Measured, SeenFile, WholeFile
from nptwatch.worker.diagnose import Diagnosis
from nptwatch.worker.outcomes import AskAgain, Close, Fault, HandBack, Store, StoreKnown
from nptwatch.worker.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nptwatch.service.build import Stores
    from nptwatch.store.records import Claim

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
OLD_SECONDS = 600.0
BASE = "base:1"


def measured() -> Measured:
    """A good result."""
    return Measured(
        grade="GOOD",
        base_revision=BASE,
        diagnostics_version=1,
        mse=0.08,
        cosine=0.99,
        duration_seconds=0.1,
        measured_at=NOW,
    )


class Scripted:
    """A diagnoser that calls what the test gives it."""

    device = "cpu"
    base_model = None

    def __init__(self) -> None:
        self.base: Callable[[], str] = lambda: BASE
        self.act: Callable[[Path], Measured] = lambda _path: measured()
        self.asked: list[Path] = []

    def base_revision(self, claim: Claim) -> str:  # noqa: ARG002 - the protocol's
        """As scripted."""
        return self.base()

    def measure(self, claim: Claim, path: Path) -> Measured:  # noqa: ARG002
        """As scripted."""
        self.asked.append(path)
        return self.act(path)

    def fails(self, error: Exception) -> None:
        """Let every measurement fail."""

        def act(_path: Path) -> Measured:
            raise error

        self.act = act


class Bench:
    """A checkpoint, its claim, and the diagnosis under test."""

    def __init__(self, folder: Path, stores: Stores, settings: Settings) -> None:
        self.run = folder / "run1"
        self.weights = self.run / "checkpoint-100" / "npt_weights.pt"
        self.weights.parent.mkdir(parents=True)
        self.weights.write_bytes(archive("100"))
        self.stores = stores
        self.settings = settings
        self.diagnoser = Scripted()
        self.diagnosis = Diagnosis(
            queue=stores.queue,
            diagnoser=self.diagnoser,
            settings=WorkerSettings(retry_delay_seconds=5.0),
            request=partial(request_of, settings),
            unloadable_after_seconds=OLD_SECONDS,
            sight=Sight(),
            clock=lambda: NOW,
        )
        self.admit(self.weights)
        claim = stores.queue.claim("w1", lease_seconds=60.0)
        assert claim is not None
        self.claim = claim

    def admit(self, path: Path, run: Path | None = None) -> None:
        """Put a file in the catalog as the watcher does."""
        run = run or self.run
        stat = path.stat()
        seen = SeenFile(
            run_path=str(run),
            run_name=run.name,
            root=str(run.parent),
            path=str(path),
            signature=f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}",
            mtime_ns=stat.st_mtime_ns,
            size_bytes=stat.st_size,
        )
        whole = WholeFile(file=seen, fingerprint=fingerprint(path), step=100, base_model=None)
        self.stores.catalog.admit(whole, request_of(self.settings))

    def twin(self) -> Path:
        """Give the claim a second path with the same content, behind the first."""
        path = self.run / "best" / "npt_weights.pt"
        path.parent.mkdir()
        shutil.copy2(self.weights, path)
        self.claim = replace(self.claim, paths=(str(self.weights), str(path)))
        return path

    def age(self, seconds: float) -> None:
        """Let the file have been written so long ago."""
        at = (NOW - timedelta(seconds=seconds)).timestamp()
        os.utime(self.weights, (at, at))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench with its own database."""
    settings = Settings(state_dir=tmp_path / "state")
    stores = open_stores(settings, migrate=True)
    yield Bench(tmp_path, stores, settings)
    stores.close()


def damage(path: Path) -> None:
    """Flip one bit of tensor data: the directory, and so the fingerprint, stays as it was."""
    before, data = fingerprint(path), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert fingerprint(path) == before


def read(path: Path) -> Measured:
    """Measure as far as the CRCs."""
    check_crc(path)
    return measured()


def overwrite(path: Path) -> None:
    """Write another version in place."""
    path.write_bytes(archive("another version"))


def test_a_measured_checkpoint_is_stored(bench: Bench) -> None:
    """The normal case: measured from the claim's first path."""
    assert bench.diagnosis.of(bench.claim) == Store(measured=measured())
    assert bench.diagnoser.asked == [bench.weights]


def test_the_same_content_measured_before_is_not_measured_again(bench: Bench) -> None:
    """A result with the same key counts, whichever run it was measured in."""
    done = bench.stores.queue.finish(bench.claim, "w1", measured(), no_alerts)
    assert done is not None
    other = bench.run.parent / "run2"
    copy = other / "checkpoint-100" / "npt_weights.pt"
    copy.parent.mkdir(parents=True)
    shutil.copy2(bench.weights, copy)
    bench.admit(copy, other)
    claim = bench.stores.queue.claim("w1", lease_seconds=60.0)
    assert claim is not None

    assert bench.diagnosis.of(claim) == StoreKnown(result_id=done.result_id)
    assert bench.diagnoser.asked == []


def test_a_job_of_other_settings_is_not_measured(bench: Bench) -> None:
    """Its result would be recorded as what it is not: it is asked for again by those in force."""
    claim = replace(bench.claim, settings_hash="of old")

    outcome = bench.diagnosis.of(claim)

    assert outcome == AskAgain(request=request_of(bench.settings))
    assert bench.diagnoser.asked == []


def test_a_checkpoint_gone_before_is_deleted(bench: Bench) -> None:
    """Rotated away while it waited: closed, not an error."""
    bench.weights.unlink()

    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, Close)
    assert outcome.state == JobState.DELETED


def test_a_checkpoint_overwritten_before_is_superseded(bench: Bench) -> None:
    """Another version lies there: the watcher admits that one by itself."""
    overwrite(bench.weights)

    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, Close)
    assert outcome.state == JobState.SUPERSEDED


def test_a_twin_is_measured_where_the_first_path_is_gone(bench: Bench) -> None:
    """The content counts, not the path."""
    twin = bench.twin()
    bench.weights.unlink()

    assert bench.diagnosis.of(bench.claim) == Store(measured=measured())
    assert bench.diagnoser.asked == [twin]


def test_a_result_is_thrown_away_when_the_file_changed_meanwhile(bench: Bench) -> None:
    """Nobody knows which version was measured."""

    def act(path: Path) -> Measured:
        overwrite(path)
        return measured()

    bench.diagnoser.act = act
    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, Close)
    assert outcome.state == JobState.SUPERSEDED


def test_a_changed_file_with_a_twin_is_tried_again_from_the_twin(bench: Bench) -> None:
    """The result is thrown away, but the content is still there."""
    twin = bench.twin()

    def act(path: Path) -> Measured:
        if path == bench.weights:
            overwrite(path)
        return measured()

    bench.diagnoser.act = act
    outcome = bench.diagnosis.of(bench.claim)
    assert isinstance(outcome, HandBack)
    assert outcome.event == "result_discarded"

    assert bench.diagnosis.of(bench.claim) == Store(measured=measured())
    assert bench.diagnoser.asked == [bench.weights, twin]


@pytest.mark.parametrize("has_twin", [True, False])
def test_a_file_deleted_while_measured_counts_only_with_a_twin(
    bench: Bench, has_twin: bool
) -> None:
    """A twin proves what was read; without one the job is closed as deleted."""
    if has_twin:
        bench.twin()

    def act(path: Path) -> Measured:
        path.unlink()
        return measured()

    bench.diagnoser.act = act
    outcome = bench.diagnosis.of(bench.claim)

    if has_twin:
        assert outcome == Store(measured=measured())
    else:
        assert isinstance(outcome, Close)
        assert outcome.state == JobState.DELETED


def test_deleted_while_reading_is_deleted(bench: Bench) -> None:
    """The reader may be the first to notice."""

    def act(path: Path) -> Measured:
        path.unlink()
        raise CheckpointDeletedError(str(path))

    bench.diagnoser.act = act
    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, Close)
    assert outcome.state == JobState.DELETED


def test_a_rewrite_noticed_by_the_reader_goes_back_uncounted(bench: Bench) -> None:
    """It is tried again after a pause."""
    bench.diagnoser.fails(CheckpointChangedError("rewritten"))

    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, HandBack)
    assert outcome.delay_seconds > 0


@pytest.mark.parametrize(("age", "delay"), [(0.0, 30.0), (590.0, 10.0), (599.9, 1.0)])
def test_a_young_file_that_is_not_whole_waits(bench: Bench, age: float, delay: float) -> None:
    """It is looked at again in at most 30 s, and as soon as it is old."""
    bench.age(age)
    bench.diagnoser.fails(IncompleteCheckpointError("CRC of data/0"))

    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, HandBack)
    assert outcome.reason == "CRC of data/0"
    assert outcome.delay_seconds == pytest.approx(delay, abs=0.1)


def test_an_old_file_that_is_not_whole_is_unloadable(bench: Bench) -> None:
    """The damage is this file's and no fact of its content: told, but no result for others."""
    bench.age(OLD_SECONDS + 1)
    bench.diagnoser.fails(IncompleteCheckpointError("CRC of data/0"))

    outcome = bench.diagnosis.of(bench.claim)

    assert outcome == Close(state=JobState.UNLOADABLE, reason="CRC of data/0")


@pytest.mark.parametrize("age", [0.0, OLD_SECONDS + 1])
def test_a_sound_twin_is_measured_where_the_first_file_is_damaged(bench: Bench, age: float) -> None:
    """A flipped bit leaves the fingerprint as it was, so that only reading tells the two apart."""
    twin = bench.twin()
    bench.age(age)
    damage(bench.weights)
    bench.diagnoser.act = read

    assert bench.diagnosis.of(bench.claim) == Store(measured=measured())
    assert bench.diagnoser.asked == [bench.weights, twin]


def test_every_damaged_file_is_named(bench: Bench) -> None:
    """Nothing is left to try: the reason says what is wrong with each."""
    twin = bench.twin()
    bench.age(OLD_SECONDS + 1)
    for path in (bench.weights, twin):
        damage(path)
    bench.age(OLD_SECONDS + 1)
    shutil.copystat(bench.weights, twin)
    bench.diagnoser.act = read

    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, Close)
    assert outcome.state == JobState.UNLOADABLE
    assert str(bench.weights) in outcome.reason
    assert str(twin) in outcome.reason


def test_a_young_damaged_twin_is_waited_for(bench: Bench) -> None:
    """While one of the files may still be written, nothing is given up."""
    twin = bench.twin()
    damage(twin)
    damage(bench.weights)
    bench.age(OLD_SECONDS + 1)
    bench.diagnoser.act = read

    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, HandBack)
    assert str(twin) in outcome.reason


def test_damage_in_one_run_says_nothing_of_a_copy_in_another(bench: Bench) -> None:
    """The damaged job ends without a result, so that the copy's job does not take it as known."""
    other = bench.run.parent / "run2"
    copy = other / "checkpoint-100" / "npt_weights.pt"
    copy.parent.mkdir(parents=True)
    shutil.copy2(bench.weights, copy)
    damage(bench.weights)
    bench.age(OLD_SECONDS + 1)
    bench.diagnoser.act = read
    outcome = bench.diagnosis.of(bench.claim)
    assert isinstance(outcome, Close)
    bench.stores.queue.close(
        bench.claim.job_id, "w1", outcome.state, outcome.reason, looked_at=bench.claim.paths
    )
    bench.admit(copy, other)
    claim = bench.stores.queue.claim("w1", lease_seconds=60.0)
    assert claim is not None

    assert bench.diagnosis.of(claim) == Store(measured=measured())


def test_a_twin_is_measured_where_the_first_goes_while_it_is_read(bench: Bench) -> None:
    """Rotation takes the numbered step; best/ still has the content."""
    bench.twin()

    def act(path: Path) -> Measured:
        if path == bench.weights:
            path.unlink()
            raise CheckpointDeletedError(str(path))
        return measured()

    bench.diagnoser.act = act
    assert bench.diagnosis.of(bench.claim) == Store(measured=measured())


@pytest.mark.parametrize("error", [UnsafeCheckpointError("pickled code"), LayoutError(["a", "b"])])
def test_a_checkpoint_at_fault_is_a_result(bench: Bench, error: Exception) -> None:
    """Refused at once, whatever its age, with the error as text."""
    bench.diagnoser.fails(error)

    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, Store)
    assert (outcome.measured.grade, outcome.measured.error) == ("UNLOADABLE", str(error))


@pytest.mark.parametrize("error", [OutOfMemoryError("8 GiB short"), MemoryError("host")])
def test_out_of_memory_goes_back_with_a_pause(bench: Bench, error: Exception) -> None:
    """It is nobody's fault."""
    bench.diagnoser.fails(error)

    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, HandBack)
    assert outcome.event == "out_of_memory"
    assert outcome.delay_seconds == pytest.approx(5.0, abs=0.5)


def test_a_missing_base_model_is_not_the_checkpoints_fault(bench: Bench) -> None:
    """The job waits a minute."""

    def base() -> str:
        raise BaseModelError("gated")

    bench.diagnoser.base = base
    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, HandBack)
    assert (outcome.event, outcome.reason) == ("base_model_unavailable", "gated")
    assert outcome.delay_seconds == pytest.approx(60.0, abs=0.5)


@pytest.mark.parametrize("late", [False, True], ids=["loading", "measuring"])
def test_texts_that_cannot_be_measured_blame_no_checkpoint(bench: Bench, *, late: bool) -> None:
    """A setting is wrong: the job waits for a better one."""

    def base() -> str:
        raise ConfigError("too many tokens")

    if late:
        bench.diagnoser.fails(ConfigError("too many tokens"))
    else:
        bench.diagnoser.base = base
    outcome = bench.diagnosis.of(bench.claim)
    assert isinstance(outcome, HandBack)
    assert outcome.reason == "too many tokens"


def test_a_base_that_fails_while_measuring_blames_no_checkpoint(bench: Bench) -> None:
    """A base that is rewritten, or whose logits are no numbers, shows only in the sweep."""
    bench.diagnoser.fails(BaseModelError("its own logits hold NaN"))
    outcome = bench.diagnosis.of(bench.claim)
    assert isinstance(outcome, HandBack)
    assert (outcome.event, outcome.reason) == ("base_model_unavailable", "its own logits hold NaN")
    assert outcome.delay_seconds > 0


def test_a_device_fault_counts_and_ends_the_process(bench: Bench) -> None:
    """The driver's state cannot be trusted; the supervisor starts a fresh worker."""
    bench.diagnoser.fails(DeviceError("illegal address"))

    assert bench.diagnosis.of(bench.claim) == Fault(cause="device", error="illegal address")
    assert bench.diagnosis.exit_code == 6


def test_a_missing_device_blames_no_checkpoint(bench: Bench) -> None:
    """Before the checkpoint is touched it cannot be at fault."""

    def base() -> str:
        raise DeviceError("no cuda:7")

    bench.diagnoser.base = base
    assert isinstance(bench.diagnosis.of(bench.claim), HandBack)
    assert bench.diagnosis.exit_code == 6


def test_two_surprises_in_a_row_end_the_process(bench: Bench) -> None:
    """One may be the checkpoint's fault; two may be this process's."""
    bench.diagnoser.fails(ValueError("boom"))
    assert bench.diagnosis.of(bench.claim) == Fault(cause="error", error="ValueError: boom")
    assert bench.diagnosis.exit_code is None
    bench.diagnoser.act = lambda _path: measured()
    bench.diagnosis.of(bench.claim)
    bench.diagnoser.fails(ValueError("boom"))
    bench.diagnosis.of(bench.claim)
    assert bench.diagnosis.exit_code is None

    bench.diagnosis.of(bench.claim)

    assert bench.diagnosis.exit_code == 1


def test_a_lost_database_goes_back_and_measures_nothing(bench: Bench, tmp_path: Path) -> None:
    """Without the database nobody knows whether it was measured before."""
    (tmp_path / "state/nptwatch.db").rename(tmp_path / "away")

    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, HandBack)
    assert outcome.event == "database_lost"
    assert bench.diagnoser.asked == []


def test_a_busy_device_goes_back_uncounted_and_gives_a_rest(bench: Bench) -> None:
    """Nobody's fault, told with its reason; no job is worth a try before the pause is over."""

    def busy() -> str:
        raise GpuBusyError("waits for cuda:0")

    bench.diagnoser.base = busy
    outcome = bench.diagnosis.of(bench.claim)

    assert isinstance(outcome, HandBack)
    assert (outcome.event, outcome.reason) == ("gpu_busy", "waits for cuda:0")
    assert outcome.delay_seconds == pytest.approx(5.0, abs=0.5)
    assert bench.diagnosis.rest_seconds == pytest.approx(5.0, abs=0.5)
    assert bench.diagnosis.exit_code is None
    bench.diagnoser.base = lambda: BASE
    bench.diagnosis.of(bench.claim)
    assert bench.diagnosis.rest_seconds == 0


def test_a_process_that_holds_part_of_a_busy_device_ends_in_good_order(bench: Bench) -> None:
    """Its context goes with it, and no crash is counted; the next process waits without one."""

    def busy() -> str:
        raise GpuBusyError("waits for cuda:0", is_spent=True)

    bench.diagnoser.base = busy
    assert isinstance(bench.diagnosis.of(bench.claim), HandBack)
    assert bench.diagnosis.exit_code == 0
