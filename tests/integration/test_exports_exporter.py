"""Exports in turns: what is new goes out once, in whatever order it came, whatever breaks."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from exporting import ENV, Exporting
from watching import until

from nptwatch.errors import ConfigError, DeliveryError
from nptwatch.exports.targets import make_targets
from nptwatch.settings import Settings
from nptwatch.store.engine import Database

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.exports.exporter import Exporter


@pytest.fixture
def jsonl(database: Database, clock: FakeClock, tmp_path: Path) -> Exporting:
    """Give an export to JSON lines."""
    return Exporting(database, clock, tmp_path, "jsonl")


def instead_of(package: str, code: str, folder: Path) -> dict[str, str]:
    """Give an environment in which code of ours stands in for a package."""
    (folder / "stand-in").mkdir()
    (folder / "stand-in" / f"{package}.py").write_text(code)
    return {"PYTHONPATH": ":".join([str(folder / "stand-in"), ENV.get("PYTHONPATH", "")])}


@pytest.mark.both_engines
def test_results_are_exported_once_in_the_order_they_came(jsonl: Exporting) -> None:
    """A late step comes late; a turn without news writes nothing; runs have their own files."""
    jsonl.record(100, 300)
    jsonl.record(50, run="deep/b")
    exporter = jsonl.exporter()
    exporter.turn()
    jsonl.record(200, None)
    exporter.turn()
    exporter.turn()
    assert jsonl.steps() == [100, 300, 200, None]
    assert jsonl.steps("deep/b") == [50]
    first = jsonl.lines()[0]
    assert (first["run"], first["mse"], first["grade"]) == ("a", 0.01, "GOOD")
    assert (first["status_before"], first["status_after"]) == (None, "GOOD")
    assert first["measured_at"] == "2026-11-20T12:00:00+00:00"
    assert jsonl.lines()[2]["status_after"] is None


def test_a_process_killed_in_mid_line_costs_no_line_and_doubles_none(jsonl: Exporting) -> None:
    """Written and not noted, or half written: what is there counts, the half is cut off."""
    jsonl.record(100, 200)
    jsonl.exporter().turn()
    path = jsonl.folder / "a.jsonl"
    content = path.read_bytes()
    torn = (content, content[:-1], content[: len(content) // 2 + 9], content[:7], b"")
    for left in (*torn, content[:-5] + b"\0" * len(content)):
        jsonl.forget_how_far()
        path.write_bytes(left)
        jsonl.exporter().turn()
        assert path.read_bytes() == content


def test_a_process_waits_for_one_that_outlived_its_daemon(jsonl: Exporting) -> None:
    """What that one still writes is there before the next one looks how far the file is."""
    jsonl.record(100)
    jsonl.exporter().turn()
    jsonl.forget_how_far()
    jsonl.record(200)
    path = jsonl.folder / "a.jsonl"
    turn = threading.Thread(target=jsonl.exporter().turn)
    with (jsonl.folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        turn.start()
        until(lambda: waits_for_lock(jsonl.folder / ".lock"))
        content = path.read_bytes()
        path.write_bytes(content + content.replace(b'"ordinal": 1', b'"ordinal": 2'))
    turn.join()
    assert [line["ordinal"] for line in jsonl.lines()] == [1, 2]


def waits_for_lock(path: Path) -> bool:
    """Say whether somebody waits for the lock on a file, as the kernel knows it."""
    waiting = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(f":{path.stat().st_ino} " in line for line in waiting)


def test_a_fresh_database_goes_on_in_an_old_folder(
    jsonl: Exporting, clock: FakeClock, migrated_file: Path, tmp_path: Path
) -> None:
    """It counts from one again, and nothing of it is taken for what is there."""
    jsonl.record(100, 200)
    jsonl.exporter().turn()
    other = tmp_path / "other.db"
    other.write_bytes(migrated_file.read_bytes())
    clock.advance(1)
    fresh = Exporting(Database(f"sqlite:///{other}"), clock, tmp_path, "jsonl")
    fresh.record(200)
    fresh.exporter().turn()
    fresh.database.close()
    assert jsonl.steps() == [100, 200, 200]
    assert len({line["history"] for line in jsonl.lines()}) == 2


def test_only_runs_that_match_are_exported(jsonl: Exporting) -> None:
    """By globs on their names; one that matches later is exported from its beginning."""
    jsonl.record(1, run="debug-1")
    jsonl.record(2, run="real")
    jsonl.exporter(runs=["real*"]).turn()
    assert not (jsonl.folder / "debug-1.jsonl").exists()
    jsonl.exporter(runs=["real*", "debug-*"]).turn()
    assert (jsonl.steps("real"), jsonl.steps("debug-1")) == ([2], [1])


@pytest.mark.both_engines
def test_two_daemons_export_each_result_once(jsonl: Exporting) -> None:
    """Both write to one place, while results come."""
    exporters = [jsonl.exporter(name) for name in ("one", "two")]
    over = threading.Event()

    def work(exporter: Exporter) -> None:
        while not over.is_set():
            exporter.turn()

    threads = [threading.Thread(target=work, args=(each,)) for each in exporters]
    for thread in threads:
        thread.start()
    for step in range(1, 13):
        jsonl.record(step, run="ab"[step % 2])
    over.set()
    for thread in threads:
        thread.join()
    exporters[0].turn()
    assert jsonl.steps("a") == [2, 4, 6, 8, 10, 12]
    assert jsonl.steps("b") == [1, 3, 5, 7, 9, 11]


def test_a_run_that_cannot_be_written_holds_up_no_other(jsonl: Exporting, clock: FakeClock) -> None:
    """The error names it; it rests, is told of until it works, and then has everything."""
    jsonl.folder.mkdir()
    (jsonl.folder / "deep").touch()
    jsonl.record(1, run="deep/b")
    jsonl.record(2)
    exporter = jsonl.exporter()
    with pytest.raises(DeliveryError, match=r"run deep/b: FileExistsError|NotADirectory"):
        exporter.turn()
    assert jsonl.steps() == [2]
    (jsonl.folder / "deep").unlink()
    jsonl.record(3)
    with pytest.raises(DeliveryError, match="run deep/b"):
        exporter.turn()
    assert jsonl.steps() == [2, 3]
    clock.advance(10)
    exporter.turn()
    assert jsonl.steps("deep/b") == [1]


def test_a_folder_that_cannot_be_used_is_told(jsonl: Exporting) -> None:
    """A file in its place is an error in words, and works once it is gone."""
    jsonl.record(1)
    jsonl.folder.write_text("not a folder")
    exporter = jsonl.exporter()
    with pytest.raises(DeliveryError, match="cannot be used"):
        exporter.turn()
    jsonl.folder.unlink()
    exporter.turn()
    assert jsonl.steps() == [1]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_with_its_extra(
    database: Database, clock: FakeClock, tmp_path: Path, name: str
) -> None:
    """Found out by the process that needs it; nothing is noted as exported."""
    settings = {"mode": "offline"} if name == "wandb" else {}
    exporting = Exporting(database, clock, tmp_path, name, **settings)
    exporting.record(1)
    broken = instead_of(name, f"raise ImportError('no {name}')", tmp_path)
    extra = rf"pip install 'nptwatch\[{name}\]'"
    with pytest.raises(DeliveryError, match=extra):
        exporting.exporter(env=broken).turn()
    assert not list(exporting.folder.rglob("*tfevents*"))
    clock.advance(10)
    exporting.exporter().turn()
    assert list(exporting.folder.rglob("*tfevents*" if name == "tensorboard" else "*.wandb"))


def test_an_export_that_hangs_is_killed_and_holds_nothing_up(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    """In time, with its reason; the run is free for the next try."""
    exporting = Exporting(database, clock, tmp_path, "wandb", mode="offline")
    exporting.record(1)
    hanging = instead_of("wandb", "import time; time.sleep(60)", tmp_path)
    exporter = exporting.exporter(env=hanging, timeout_seconds=1.0)
    began = time.monotonic()
    with pytest.raises(DeliveryError, match=r"exports.wandb was killed after 1 s"):
        exporter.turn()
    assert time.monotonic() - began < 10
    with database.read() as connection:
        claims = connection.exec_driver_sql("SELECT claimed_by FROM exports").scalars().all()
    assert claims == [None]


def test_a_stopping_daemon_waits_for_no_export(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    """Closed in the middle of a process: the turn ends at once, without a complaint."""
    exporting = Exporting(database, clock, tmp_path, "wandb", mode="offline")
    exporting.record(1)
    begun = tmp_path / "begun"
    code = f"import time; open({str(begun)!r}, 'w'); time.sleep(60)"
    exporter = exporting.exporter(env=instead_of("wandb", code, tmp_path))
    turn = threading.Thread(target=exporter.turn)
    turn.start()
    until(begun.exists)
    exporter.close()
    turn.join(10)
    assert not turn.is_alive()


def test_a_folder_below_a_watched_root_is_refused(tmp_path: Path) -> None:
    """Nothing is ever written there."""
    root = tmp_path / "exp"
    exports = {"jsonl": {"on": True, "folder": root / "a"}}
    settings = Settings(state_dir=tmp_path, watch={"roots": [root]}, exports=exports)
    with pytest.raises(ConfigError, match=r"exports.jsonl: .* below the watched root"):
        make_targets(settings, env={})


def test_nothing_is_exported_unless_it_is_switched_on(tmp_path: Path) -> None:
    """By default there is no export."""
    assert make_targets(Settings(state_dir=tmp_path), env={}) == []
