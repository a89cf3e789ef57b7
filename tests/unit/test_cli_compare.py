"""How comparisons look: side by side on a screen of any width, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from reporting import full, quick

from nptwatch.cli.compare_checkpoints import checkpoints_json, print_checkpoints
from nptwatch.cli.compare_runs import print_runs, runs_json, write_csv
from nptwatch.cli.compared import Checkpoint
from nptwatch.cli.screen import Screen, plain
from nptwatch.diagnostics.curves import Curve, points_of

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def screen(width: int | None) -> Screen:
    """Give a screen without colours."""
    return Screen(out=io.StringIO(), width=width, colours=False, now=NOW)


def shown(on: Screen) -> list[str]:
    """Give the lines on it."""
    assert isinstance(on.out, io.StringIO)
    return on.out.getvalue().splitlines()


def checkpoints(*reports: dict[str, Any]) -> list[Checkpoint]:  # Any: free JSON
    """Give checkpoints with long paths."""
    return [
        Checkpoint(
            path=f"/home/somebody/experiments/llama-3.2-1b/dual-r64/checkpoints/checkpoint-{n}00",
            report=report,
            source="database",
            measured_at=NOW,
        )
        for n, report in enumerate(reports, 1)
    ]


def curve(name: str, *mses: float | None) -> Curve:
    """Give a run with a point each hundred steps; None: not measured there."""
    reports = [
        quick(mse, step=100 * n, grade="EXCELLENT", checkpoint=f"/{name}/{n}")
        for n, mse in enumerate(mses, 1)
        if mse is not None
    ]
    return Curve(name=name, source=f"/exp/{name}", points=points_of(reports), sample=quick())


def test_two_checkpoints_side_by_side() -> None:
    """Value, difference and factor in one line; a row without numbers has no difference."""
    on = screen(80)
    print_checkpoints(checkpoints(quick(0.4), quick(0.1, grade="GOOD", step=200)), on)
    rows = [line.split() for line in shown(on)]
    assert ["MEASURE", "A", "B", "B-A", "B/A"] in rows
    assert ["MSE", "Loss", "0.400000", "0.100000", "-0.300000", "x0.250"] in rows
    assert ["Cosine", "Similarity", "0.9000", "0.9000", "+0.0000"] in rows
    assert ["Grade", "FAIR", "GOOD"] in rows
    assert ["layer", "2", "0.010000", "0.010000", "+0.000000", "x1.00"] in rows
    assert rows[2][:5] == ["B", "database,", "0", "s", "ago"]
    assert rows[2][5].endswith("/checkpoint-200")


@pytest.mark.parametrize(("width", "blocks"), [(80, 4), (160, 2), (None, 1)])
def test_more_checkpoints_than_fit_go_into_blocks(width: int | None, blocks: int) -> None:
    """Nothing is wider than the screen; each block starts with the first one; none is lost."""
    on = screen(width)
    reports = [full(0.4 / n, 0.6, summary=PARTLY) for n in range(1, 6)]
    print_checkpoints(checkpoints(*reports), on)
    lines = shown(on)
    heads = [line.split() for line in lines if line.startswith("MEASURE")]
    assert len(heads) == blocks
    assert all(head[1] == "A" for head in heads)
    assert [title for head in heads for title in head if title in "BCDE"] == list("BCDE")
    assert width is None or max(map(len, lines)) <= width
    assert sum("Progressive Activation" in line for line in lines) == blocks


PARTLY = {"overall_status": "PARTIALLY_READY", "avg_score": 0.7}


@pytest.mark.parametrize("width", [80, 160])
def test_findings_and_warnings_fit(width: int) -> None:
    """Long sentences wrap; equal findings are told once, with all who have them."""
    finding = {"code": "DIRECTION", "text": "Outputs point in the wrong direction. " * 5}
    on = screen(width)
    reports = quick(findings=[finding]), quick(findings=[finding], residual="drop")
    print_checkpoints(checkpoints(*reports), on)
    lines = shown(on)
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("A, B: DIRECTION: Outputs") for line in lines) == 1
    told = "warning: the numbers are not comparable, residual rules differ: A keep, B drop"
    assert told in " ".join(line.strip() for line in lines)


def test_a_mixture_of_profiles_says_what_is_missing() -> None:
    """Scores are compared only where two have them; which has none, and the fix, are told."""
    on = screen(80)
    print_checkpoints(checkpoints(full(), quick()), on)
    lines = shown(on)
    assert "TEST RESULTS" not in lines
    assert lines[-1] == "no full diagnostic of B: --profile full measures what is missing"
    on = screen(80)
    print_checkpoints(checkpoints(full(), full()), on)
    assert "TEST RESULTS" in shown(on)


def test_enormous_and_missing_numbers_keep_the_table() -> None:
    """A diverged checkpoint has an MSE of millions, an unloadable one none."""
    on = screen(80)
    nothing = quick(None, grade="UNLOADABLE", local_errors=[], accuracy={"avg_mse": None})
    print_checkpoints(checkpoints(quick(1e-9), quick(3.2e12), nothing), on)
    lines = shown(on)
    assert max(map(len, lines)) <= 80
    assert any("3.200e+12" in line for line in lines)
    assert ["MSE", "Loss", "0.000000", "-", "-"] in [line.split() for line in lines]


def test_checkpoints_as_json() -> None:
    """Lists in the order of the checkpoints; what is not comparable is said there too."""
    told = json.loads(
        json.dumps(plain(checkpoints_json(checkpoints(full(0.4), full(0.1, residual="drop")))))
    )
    assert told["kind"] == "checkpoints"
    assert [each["name"] for each in told["checkpoints"]] == ["A", "B"]
    assert told["checkpoints"][0]["step"] == 100
    assert told["sections"]["accuracy"]["mse"] == {
        "values": [0.4, 0.1],
        "differences": [None, pytest.approx(-0.3)],
        "factors": [None, pytest.approx(0.25)],
    }
    generation = told["sections"]["tests"]["Generation Quality"]
    assert generation["words"] == ["WARNING", "WARNING"]
    assert told["sections"]["tests"]["overall_status"] == {"words": ["NOT_READY", "NOT_READY"]}
    assert set(told["sections"]["local_relative"]) == {"2"}
    assert len(told["warnings"]) == 1


@pytest.mark.parametrize("width", [80, 160, None])
def test_runs_step_by_step(width: int | None) -> None:
    """A row for each step of either, a dash where one has none; lines of MSE and the tally."""
    on = screen(width)
    print_runs([curve("llama/dual", 0.4, 0.2, None), curve("llama/single", 0.3, None, 0.1)], on)
    lines = shown(on)
    rows = [line.split() for line in lines]
    assert ["A", "llama/dual", "2", "200", "EXCELLENT", "0.2000", "200", "100"] in rows
    first = ["0.4000", "0.9000", "EXCELLENT", "0.3000", "0.9000", "EXCELLENT", "-0.1000", "+0.0000"]
    assert ["100", *first] in rows
    assert ["200", "0.2000", "0.9000", "EXCELLENT", *"-----"] in rows
    assert ["300", *"---", "0.1000", "0.9000", "EXCELLENT", *"--"] in rows
    assert "MSE 0.4000 to 0.2000" in lines[-3]
    told = "B against A: MSE lower at 1 of 1 steps that both have, x0.750 in the mean"
    assert lines[-1] == told
    assert width is None or max(map(len, lines)) <= width


def test_a_difference_of_rounding_has_no_minus_sign() -> None:
    """The same weights measured twice differ in the last bits: +0.0000, never -0.0000."""
    on = screen(80)
    print_runs([curve("a", 0.4), curve("b", 0.4 - 1e-9)], on)
    print_checkpoints(checkpoints(quick(0.4), quick(0.4 - 1e-9)), on)
    text = "\n".join(shown(on))
    assert "-0.0000" not in text
    assert "+0.000000" in text


def test_many_runs_go_into_blocks() -> None:
    """Each block has the steps and the first run."""
    on = screen(80)
    print_runs([curve(name, 0.4, 0.2) for name in "wxyz"], on)
    lines = shown(on)
    assert sum(line.startswith("STEP") for line in lines) == 3
    assert max(map(len, lines)) <= 80


def test_runs_as_json() -> None:
    """Null where a run has no such step; best, first GOOD and tally of each run."""
    told = plain(runs_json([curve("a", 0.4, 0.2, None), curve("b", 0.3, None, 0.1)]))
    assert isinstance(told, dict)
    assert [step["step"] for step in told["steps"]] == [100, 200, 300]
    assert told["steps"][0]["differences"] == [None, {"mse": pytest.approx(-0.1), "cosine": 0}]
    assert told["steps"][1]["values"][1] is None
    assert told["steps"][1]["differences"] == [None, {"mse": None, "cosine": None}]
    b = told["runs"][1]
    assert (b["best"]["step"], b["best"]["path"], b["first_good_step"]) == (300, "/b/3", 100)
    assert b["against_first"]["lower"] == 1


def test_runs_as_csv() -> None:
    """RFC 4180: a header, a line for each step, empty where there is nothing; names stay apart."""
    out = io.StringIO(newline="")
    write_csv([curve("a", 0.4, 0.2), curve("b,c", 0.3)], out)
    assert out.getvalue().count("\r\n") == 3
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert (rows[0]["a mse"], rows[0]["b,c mse"]) == ("0.4", "0.3")
    assert float(rows[0]["b,c mse difference"]) == pytest.approx(-0.1)
    assert (rows[1]["step"], rows[1]["b,c mse"], rows[1]["b,c mse difference"]) == ("200", "", "")
    twice = io.StringIO(newline="")
    write_csv([curve("a", 0.4), curve("a", 0.3)], twice)
    assert "/exp/a mse" in twice.getvalue()
