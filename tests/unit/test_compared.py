"""What an argument of `compare` names: on disk, in the database, in a report file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reporting import full, quick
from stocking import QUICK, measured, no_alerts, path_of, whole

from nptwatch.cli.compared import Checkpoint, Lookup
from nptwatch.diagnostics.curves import Curve
from nptwatch.errors import CheckpointDeletedError, ConfigError
from nptwatch.npt.files import fingerprint
from nptwatch.settings import Settings
from nptwatch.store.catalog import Catalog
from nptwatch.store.history import History
from nptwatch.store.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from conftest import FakeClock

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Measured, WholeFile

GOLDEN = Path(__file__).parents[1] / "data/golden/run/experiments/equivalence/checkpoints"


class Measuring:
    """Gives a report for each file, and keeps which were asked for."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def __call__(self, files: Sequence[Path]) -> list[dict[str, Any]]:  # Any: free JSON
        """Measure: the step follows from the folder."""
        self.files += [str(file) for file in files]
        steps = [int(file.parent.name.removeprefix("checkpoint-")) for file in files]
        return [quick(step / 1000, step=step, checkpoint=f"{step}") for step in steps]


@pytest.fixture
def measuring() -> Measuring:
    """Give what measures."""
    return Measuring()


@pytest.fixture
def lookup(database: Database, clock: FakeClock, measuring: Measuring) -> Lookup:
    """Give a lookup in a database."""
    history = History(database, clock=clock)
    return Lookup(settings=Settings(), history=history, measure=measuring, profile="quick")


@pytest.fixture
def store(database: Database, clock: FakeClock) -> Callable[[WholeFile, Measured | None], None]:
    """Give a function that stores a checkpoint and, where there is one, its result."""
    catalog, queue = Catalog(database, clock=clock), Queue(database, clock=clock)

    def add(file: WholeFile, result: Measured | None) -> None:
        catalog.admit(file, QUICK)
        if result is not None:
            claim = queue.claim("w", lease_seconds=60)
            assert claim is not None
            queue.finish(claim, "w", result, no_alerts)

    return add


def on_disk(tmp_path: Path, step: int = 100) -> Path:
    """Put a real checkpoint into a run's folder."""
    folder = tmp_path / "exp/a/checkpoints" / f"checkpoint-{step}"
    shutil.copytree(GOLDEN / "checkpoint-100", folder)
    return folder / "npt_weights.pt"


def known(file: Path, **changes: Any) -> WholeFile:  # Any: fields
    """Give a file on disk as the watcher stores it."""
    content = changes.pop("content", None) or fingerprint(file)
    run = file.parents[2]
    return whole("a", 100, content, path=str(file), run_path=str(run), **changes)


def result(mse: float) -> Measured:
    """Give a result with a report."""
    return measured("FAIR", mse, details=quick(mse))


def test_what_is_known_is_not_measured_again(
    lookup: Lookup, store: Any, measuring: Measuring, tmp_path: Path
) -> None:
    """By file, folder or job number; the stored report is what counts."""
    file = on_disk(tmp_path)
    store(known(file), result(0.2))
    for named in (str(file), str(file.parent), "1"):
        found = lookup.find(named)
        assert isinstance(found, Checkpoint)
        assert (found.report["accuracy"]["avg_mse"], found.source) == (0.2, "database")
    assert not measuring.files


def test_a_file_that_was_rewritten_is_measured(
    lookup: Lookup, store: Any, measuring: Measuring, tmp_path: Path
) -> None:
    """The stored numbers are of another content, and the watcher has not seen the new one yet."""
    file = on_disk(tmp_path)
    store(known(file, content="zip:before"), result(0.2))
    found = lookup.find(str(file))
    assert (found.source, measuring.files) == ("measured now", [str(file)])
    # the job is of the old content: its numbers stay what they are
    job = lookup.find("1")
    assert isinstance(job, Checkpoint)
    assert job.report["accuracy"]["avg_mse"] == 0.2


def test_a_file_without_a_result_is_measured(
    lookup: Lookup, store: Any, measuring: Measuring, tmp_path: Path
) -> None:
    """Queued or unknown: there is the file, so there is an answer; a job's number has none."""
    file, other = on_disk(tmp_path), on_disk(tmp_path, 200)
    store(known(file), None)
    assert [lookup.find(str(each)).source for each in (file, other)] == ["measured now"] * 2
    assert measuring.files == [str(file), str(other)]
    with pytest.raises(ConfigError, match=r"no result yet: .* is queued"):
        lookup.find("1")


def test_a_full_diagnostic_is_measured_where_only_a_quick_one_is_known(
    database: Database, clock: FakeClock, store: Any, measuring: Measuring, tmp_path: Path
) -> None:
    """--profile full: a stored quick result is not enough, a stored full one is."""
    file, other = on_disk(tmp_path), on_disk(tmp_path, 200)
    store(known(file), result(0.2))
    history = History(database, clock=clock)
    lookup = Lookup(settings=Settings(), history=history, measure=measuring, profile="full")
    assert [lookup.find(named).source for named in (str(file), "1")] == ["measured now"] * 2
    stored = known(other, content="full", mtime_ns=2_000)
    store(stored, measured("FAIR", 0.3, details=full(0.3)))
    assert lookup.find("2").source == "database"


def test_a_checkpoint_that_is_gone_is_found_by_its_path(lookup: Lookup, store: Any) -> None:
    """Rotated away from disk, its numbers stay; an unloadable one has a grade and no numbers."""
    store(whole("a", 100), result(0.2))
    unloadable = measured("UNLOADABLE", None, cosine=None, details={}, error="layer 9")
    store(whole("a", 200), unloadable)
    found = lookup.find(path_of("a", "checkpoint-100"))
    assert isinstance(found, Checkpoint)
    assert found.report["grade"] == "FAIR"
    bad = lookup.find(path_of("a", "checkpoint-200"))
    assert isinstance(bad, Checkpoint)
    assert (bad.report["grade"], bad.report["accuracy"]["avg_mse"]) == ("UNLOADABLE", None)


def test_a_run_is_found_by_name_and_by_folder(lookup: Lookup, store: Any, tmp_path: Path) -> None:
    """Its numbered steps with a result, the newest result of each; no file is read."""
    file = on_disk(tmp_path)
    store(known(file), result(0.5))
    store(whole("a", 200, run_path=str(file.parents[2])), result(0.2))
    store(whole("a", 300, run_path=str(file.parents[2])), None)
    store(
        whole("a", 400, run_path=str(file.parents[2])),
        measured("UNLOADABLE", None, details={}),
    )
    for named in ("a", str(file.parents[2])):
        found = lookup.find(named)
        assert isinstance(found, Curve)
        assert [(point.step, point.mse) for point in found.points] == [
            (100, 0.5),
            (200, 0.2),
            (400, None),
        ]
        assert found.sample["accuracy"]["avg_mse"] == 0.2


def test_a_resumed_run_s_abandoned_branch_is_left_out(
    lookup: Lookup, store: Any, clock: FakeClock
) -> None:
    """Step 100 was trained again: what was there before, at it and above, is another run's."""
    for step, mse in ((50, 0.95), (100, 0.9), (200, 0.8)):
        store(whole("a", step), result(mse))
    clock.advance(3600)
    store(whole("a", 100, "again"), result(0.3))
    store(whole("a", 100, "bad", folder="best"), measured("UNLOADABLE", None, details={}))
    found = lookup.find("a")
    assert isinstance(found, Curve)
    assert [(point.step, point.mse) for point in found.points] == [(50, 0.95), (100, 0.3)]


def test_a_folder_that_nobody_watches_is_measured(
    lookup: Lookup, measuring: Measuring, tmp_path: Path
) -> None:
    """Every checkpoint below it, as one run; one checkpoint's own folder is a checkpoint."""
    on_disk(tmp_path, 200)
    on_disk(tmp_path, 100)
    found = lookup.find(str(tmp_path / "exp/a"))
    assert isinstance(found, Curve)
    assert [(point.step, point.mse) for point in found.points] == [(100, 0.1), (200, 0.2)]
    assert len(measuring.files) == 2
    alone = lookup.find(str(tmp_path / "exp/a/checkpoints/checkpoint-200"))
    assert isinstance(alone, Checkpoint)


def test_report_files(lookup: Lookup, measuring: Measuring, tmp_path: Path) -> None:
    """What --output wrote: of one checkpoint a checkpoint, of a folder a run."""
    one, many = tmp_path / "one.json", tmp_path / "many.json"
    one.write_text(json.dumps(quick(0.3, checkpoint="/exp/x.pt")))
    many.write_text(json.dumps([quick(0.3, step=1), quick(0.2, step=2)]))
    found, run = lookup.find(str(one)), lookup.find(str(many))
    assert isinstance(found, Checkpoint)
    assert (found.path, found.report["accuracy"]["avg_mse"]) == ("/exp/x.pt", 0.3)
    assert isinstance(run, Curve)
    assert [point.step for point in run.points] == [1, 2]
    assert not measuring.files


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"accuracy": 1}', "[1]", '"x"', "{"])
def test_a_file_that_is_no_report_is_refused(lookup: Lookup, content: str, tmp_path: Path) -> None:
    """Exit code 2 and the file's name, whatever is in it."""
    file = tmp_path / "r.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"r\.json is no report"):
        lookup.find(str(file))


def test_what_nobody_knows_is_an_error(
    lookup: Lookup, store: Any, measuring: Measuring, tmp_path: Path
) -> None:
    """It says what was looked for, and which runs come close."""
    store(whole("equivalence", 100), result(0.2))
    with pytest.raises(ConfigError, match=r"no file or folder.*did you mean equivalence"):
        lookup.find("equivalenze")
    with pytest.raises(ConfigError, match="nothing is known of '77'"):
        lookup.find("77")
    without = Lookup(settings=Settings(), history=None, measure=measuring, profile="quick")
    with pytest.raises(ConfigError, match="no file or folder, and there is no database"):
        without.find("equivalence")
    with pytest.raises((ConfigError, CheckpointDeletedError)):
        without.find(str(tmp_path / "gone"))
