"""`nptwatch full` as the guide uses it: flags, output, directories, interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny

from nptwatch.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
BASE = str(GOLDEN / "base")
RUN = GOLDEN / "run" / "experiments" / "equivalence" / "checkpoints"
CASE = GOLDEN / "cases" / "single-rank1-keep" / "checkpoints" / "checkpoint-2000"
EXPECTED = json.loads((CASE.parents[1] / "expected.json").read_text())
TESTS = [
    "Basic Functionality",
    "NPT vs Standard Mode",
    "Per-Layer Performance",
    "Generation Quality",
    "Progressive Layer Activation",
]

Told = tuple[int, str, str]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPTWATCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("NPTWATCH_BASE__LOCAL_FILES_ONLY", "true")  # no network at test time
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def full(capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Give `nptwatch full`: its exit code, stdout and stderr."""

    def run(*arguments: object) -> Told:
        code = main(["full", *map(str, arguments), "--model_name", BASE])
        return code, *capsys.readouterr()

    return run


def read(file: str) -> Any:
    """Read JSON."""
    return json.loads(Path(file).read_text())


def test_the_guide_s_flags(full: Callable[..., Told]) -> None:
    """--checkpoint, --model_name, --detailed, --output; the numbers are golden."""
    weights = CASE / "npt_weights.pt"
    code, out, _ = full("--checkpoint", weights, "--detailed", "--output", "results.json")
    report = read("results.json")
    assert code == 0
    assert "DETAILED TEST RESULTS:" in out
    assert f"OVERALL STATUS: {report['summary']['overall_status']}" in out
    assert [test["test_name"] for test in report["detailed_results"]] == TESTS
    assert f"MSE Loss: {EXPECTED['quick_avg']['mse']:.6f}" in out
    layers = report["detailed_results"][2]["details"]["layer_results"]
    assert {layer: numbers["mse_loss"] for layer, numbers in layers.items()} == pytest.approx(
        {layer: numbers["mse"] for layer, numbers in EXPECTED["per_layer"].items()}, rel=1e-4
    )
    assert (report["profile"], report["grade"], report["step"]) == ("full", "FAIR", 2000)


def test_quick_runs_the_first_two_tests(full: Callable[..., Told]) -> None:
    """--quick: basic functionality and NPT vs standard; nothing is generated."""
    code, out, _ = full(CASE, "--quick", "--json")
    report = json.loads(out)
    assert code == 0
    assert [test["test_name"] for test in report["detailed_results"]] == TESTS[:2]
    assert report["summary"]["test_counts"]["total"] == 2
    assert report["seed"] is None


def test_a_seed_gives_the_same_texts_again(full: Callable[..., Told]) -> None:
    """Equal seeds draw equal continuations, another seed others; the seed is reported."""

    def texts(seed: int) -> tuple[int, object]:
        report = json.loads(full(CASE, "--seed", seed, "--json")[1])
        details = report["detailed_results"][3]["details"]
        return report["seed"], details["generation_results"]["1.0"]

    first = texts(7)
    assert first[0] == 7
    assert texts(7) == first
    assert texts(8)[1] != first[1]
    assert full(CASE, "--seed", "-1")[0] == 2


@pytest.mark.parametrize("verb", ["quick", "full"])
def test_probe_texts_from_a_file(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--probes measures on these texts instead of the guide's, in quick and full."""
    Path("texts.txt").write_text("One text.\n\nAnother one.\n")
    more = ["--quick"] if verb == "full" else []
    asked = [verb, str(CASE), "--model-name", BASE, "--probes", "texts.txt", "--json", *more]
    assert main(asked) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["accuracy"]["individual_mse"]) == 2
    assert report["accuracy"]["avg_mse"] != pytest.approx(EXPECTED["quick_avg"]["mse"], rel=1e-4)
    if verb == "full":
        compared = report["detailed_results"][1]["details"]["individual_results"]
        assert [each["text"] for each in compared] == ["One text.", "Another one."]
    assert main([verb, str(CASE), "--probes", "nowhere.txt"]) == 2
    assert "nowhere.txt" in capsys.readouterr().err


def test_a_directory_gives_a_row_each_and_a_list(full: Callable[..., Told]) -> None:
    """In step order; 80 columns are enough; --output has every report."""
    code, out, err = full(RUN, "--output", "all.json")
    rows = out.splitlines()[:7]
    assert code == 0
    assert rows[0].split() == [
        "STEP",
        "CHECKPOINT",
        "MSE",
        "COSINE",
        "GRADE",
        "SCORE",
        "P/W/F",
        "STATUS",
    ]
    assert [row.split()[:2] for row in rows[1:]] == [
        *(["100", "checkpoint-100"], ["200", "checkpoint-200"]),
        *(["300", "checkpoint-300"], ["400", "checkpoint-400"]),
        *(["400", "best"], ["400", "final"]),
    ]
    assert max(map(len, out.splitlines())) <= 80
    assert "measured 6/6" in err
    reports = read("all.json")
    assert [report["step"] for report in reports] == [100, 200, 300, 400, 400, 400]
    for row, report in zip(rows[1:], reports, strict=True):
        summary = report["summary"]
        assert row.split()[-1] == summary["overall_status"]
        assert row.split()[-3] == f"{summary['avg_score']:.2f}"
    assert json.loads(full(RUN, "--json", "--quick")[1])[0]["profile"] == "full"


def test_one_bad_checkpoint_of_many_does_not_stop_the_rest(
    full: Callable[..., Told], tmp_path: Path
) -> None:
    """A truncated file and one with NaN are rows that say so; the exit code tells."""
    run = shutil.copytree(RUN, tmp_path / "run")
    os.truncate(run / "checkpoint-200" / "npt_weights.pt", 20_000)
    tensors = tiny.weights(tiny.layer(1), hidden=64, intermediate=192)
    next(iter(tensors.values()))[0, 0] = float("nan")
    tiny.save(run / "checkpoint-300" / "npt_weights.pt", tensors)
    code, out, err = full(run, "--detailed", "--output", "all.json")
    table = out.partition("STEP")[2].splitlines()
    assert code == 3
    assert "half-written" in err
    assert "UNLOADABLE" in table[2]
    assert table[3].split()[2:] == ["-", "-", "INVALID", "0.00", "0/0/5", "NOT_READY"]
    assert sum("FAIR" in row for row in table) == 4
    assert out.count("DETAILED TEST RESULTS:") == 5
    assert [report["summary"]["avg_score"] for report in read("all.json")][1:3] == [None, 0.0]


def test_what_is_measured_before_ctrl_c_is_written_and_printed(tmp_path: Path) -> None:
    """SIGINT in a directory of many: exit 130, rows and a whole JSON list of what is done."""
    for step in range(200):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        os.link(CASE / "npt_weights.pt", folder / "npt_weights.pt")
    process = started("full", tmp_path / "run", "--model-name", BASE, "-o", tmp_path / "all.json")
    assert process.stderr is not None
    while "measured 2/200" not in (line := process.stderr.readline()):
        assert line, "it ended before it was interrupted"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    reports = json.loads((tmp_path / "all.json").read_text())
    assert 2 <= len(reports) < 200
    assert f"stopped: {len(reports)} of 200 checkpoints were measured" in err
    rows = [line for line in out.splitlines() if "checkpoint-" in line]
    assert [int(row.split()[0]) for row in rows] == list(range(len(reports)))


def test_an_error_that_is_no_checkpoint_s_ends_it_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The second run names no base: what is measured of the first is told, the exit code is 4."""
    for run in "ab":
        folder = tmp_path / "runs" / run / "checkpoints" / "checkpoint-1"
        folder.mkdir(parents=True)
        shutil.copy(CASE / "npt_weights.pt", folder)
    config = tmp_path / "runs" / "a" / "config.json"
    config.write_text(json.dumps({"model_name": BASE}))
    assert main(["quick", str(tmp_path / "runs"), "--output", "all.json"]) == 4
    out, err = capsys.readouterr()
    assert "checkpoint-1  0.177575" in out
    assert "stopped: 1 of 2" in err
    assert "use --model-name" in err
    assert [report["grade"] for report in read("all.json")] == ["FAIR"]


def test_an_output_that_cannot_be_written_is_told_before_measuring(
    full: Callable[..., Told],
) -> None:
    """Minutes of measuring must not end in a typing error."""
    code, out, err = full(CASE, "--output", "nowhere/results.json")
    assert (code, out) == (2, "")
    assert "cannot write nowhere/results.json" in err
    assert "loading base model" not in err


def started(*arguments: object) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nptwatch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
