"""`nptwatch compare` as people and scripts call it: real checkpoints, a real database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reporting import full, quick
from stocking import QUICK, measured, no_alerts, whole

from nptwatch.cli.main import main
from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.store.records import Measured, WholeFile

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
BASE = str(GOLDEN / "base")
CASE = GOLDEN / "cases" / "single-rank1-keep" / "checkpoints" / "checkpoint-2000"
OTHER = next((GOLDEN / "cases" / "single-rank4-keep" / "checkpoints").iterdir())
RUN = GOLDEN / "run" / "experiments" / "equivalence"
MSE = [
    json.loads((folder / "expected.json").read_text())["quick_avg"]["mse"]
    for folder in (CASE.parents[1], OTHER.parents[1])
]

Told = tuple[int, str, str]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPTWATCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("NPTWATCH_BASE__LOCAL_FILES_ONLY", "true")  # no network at test time
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Give `nptwatch compare`: its exit code, stdout and stderr."""

    def run(*arguments: object) -> Told:
        code = main(["compare", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def store(tmp_path: Path, migrated_file: Path) -> Callable[[WholeFile, Measured], None]:
    """Give a function that puts a result into the command's database."""
    file = tmp_path / "state" / "nptwatch.db"
    file.parent.mkdir()
    shutil.copy(migrated_file, file)

    def add(checkpoint: WholeFile, result: Measured) -> None:
        database = Database(f"sqlite:///{file}")
        Catalog(database).admit(checkpoint, QUICK)
        queue = Queue(database)
        claim = queue.claim("w", lease_seconds=60)
        assert claim is not None
        queue.finish(claim, "w", result, no_alerts)
        database.close()

    return add


def test_files_are_measured_with_one_base(compare: Callable[..., Told]) -> None:
    """The numbers are golden; no database is needed or made."""
    code, out, err = compare(CASE, OTHER, "--model-name", BASE)
    assert code == 0
    assert err.count("loading base model") == 1
    row = next(line.split() for line in out.splitlines() if line.startswith("MSE Loss"))
    assert row[2:4] == [f"{mse:.6f}" for mse in MSE]
    assert float(row[4]) == pytest.approx(MSE[1] - MSE[0], abs=2e-6)
    assert float(row[5].removeprefix("x")) == pytest.approx(MSE[1] / MSE[0], rel=0.01)
    assert "warning" not in out
    assert not Path("state/nptwatch.db").exists()


def test_folders_of_checkpoints_are_runs(compare: Callable[..., Told]) -> None:
    """Two runs that nobody watches, step by step: best/ and final/ are twins and no steps."""
    shutil.copytree(RUN, "longer")
    shutil.copytree(RUN, "shorter")
    shutil.rmtree("shorter/checkpoints/checkpoint-300")
    code, out, _ = compare("longer", "shorter", "--model-name", BASE, "--json")
    told = json.loads(out)
    assert code == 0
    assert [step["step"] for step in told["steps"]] == [100, 200, 300, 400]
    assert told["steps"][0]["values"][0]["mse"] == pytest.approx(0.399209, rel=1e-4)
    assert told["steps"][0]["differences"][1]["mse"] == 0
    assert told["steps"][2]["values"][1] is None
    assert told["runs"][1]["against_first"]["steps"] == 3


def test_a_full_diagnostic_is_compared_test_by_test(compare: Callable[..., Told]) -> None:
    """--profile full measures all five tests of both, each layer alone among them."""
    code, out, _ = compare(CASE, OTHER, "--model-name", BASE, "--profile", "full", "--json")
    sections = json.loads(out)["sections"]
    assert code == 0
    assert len(sections["tests"]) == 2 + 5
    assert sections["accuracy"]["mse"]["values"] == pytest.approx(MSE, rel=1e-4)
    expected = json.loads((CASE.parents[1] / "expected.json").read_text())["per_layer"]
    alone = {layer: row["values"][0] for layer, row in sections["alone_mse"].items()}
    assert {layer for layer, mse in alone.items() if mse is not None} == set(expected)
    for layer, numbers in expected.items():
        assert alone[layer] == pytest.approx(numbers["mse"], rel=1e-3)


def test_stored_results_load_no_torch(store: Callable[..., None]) -> None:
    """Runs by name, checkpoints by job number, reports by file: answered without measuring."""
    for run, mse in (("a", 0.3), ("b", 0.2)):
        store(whole(run, 100), measured("FAIR", mse, details=full(mse)))
    Path("r.json").write_text(json.dumps(quick(0.1)))
    command = "import sys; from nptwatch.cli.main import main; code = main(sys.argv[1:]);"
    command += "sys.exit(code or 10 * ('torch' in sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for what in (("a", "b"), ("1", "2", "r.json")):
        done = subprocess.run(
            [sys.executable, "-c", command, "compare", *what],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "-0.1000" in done.stdout


def test_csv_is_for_runs(compare: Callable[..., Told], store: Callable[..., None]) -> None:
    """Runs as CSV; checkpoints have too many measures for one."""
    for run, mse in (("a", 0.3), ("b", 0.25)):
        store(whole(run, 100), measured("FAIR", mse))
    code, out, _ = compare("a", "b", "--csv")
    assert (code, out.splitlines()[1].split(",")[-1]) == (0, "-0.04999999999999999")
    code, _, err = compare("1", "2", "--csv")
    assert (code, "--csv is for runs" in err) == (2, True)


def test_runs_and_checkpoints_do_not_mix(
    compare: Callable[..., Told], store: Callable[..., None]
) -> None:
    """Exit code 2; it says which is which."""
    store(whole("a", 100), measured("FAIR", 0.3))
    code, _, err = compare("a", "1")
    assert code == 2
    assert "a is a run, 1 a checkpoint" in err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["x"], 2, "two or more"),
        (["x", "y"], 2, "'x' is no file or folder"),
        (["bad.pt", str(CASE), "--model-name", BASE], 3, "half-written"),
        (["x", "y", "--json", "--csv"], 2, "--json or --csv"),
    ],
)
def test_what_cannot_be_compared_is_told(
    compare: Callable[..., Told], arguments: list[str], code: int, told: str
) -> None:
    """One line on stderr, the exit code of its cause, nothing on stdout."""
    shutil.copy(CASE / "npt_weights.pt", "bad.pt")
    os.truncate("bad.pt", 2000)
    failed, out, err = compare(*arguments)
    assert (failed, out) == (code, "")
    assert told in err


def test_files_are_compared_where_the_database_is_broken(compare: Callable[..., Told]) -> None:
    """What is on disk needs no database: a note says that it is not used. A run's name needs it."""
    Path("state").mkdir()
    Path("state/nptwatch.db").write_bytes(b"garbage" * 1000)
    code, out, err = compare(CASE, CASE, "--model-name", BASE)
    assert (code, "note: the database is not used" in err) == (0, True)
    assert "x1.00" in out
    code, _, _ = compare("a", "b")
    assert code == 5
