"""Reports side by side: which rows there are, and what is subtracted from what."""

from __future__ import annotations

from typing import Any

import pytest
from reporting import TESTS, full, quick

from nptwatch.diagnostics.comparable import not_comparable
from nptwatch.diagnostics.comparing import Row, compare_reports, letter, shared_findings

Rows = dict[str, dict[str, Row]]


def rows_of(*reports: dict[str, Any]) -> Rows:  # Any: free JSON
    """Compare, and give the rows by section and key."""
    return {
        section.key: {row.key: row for row in section.rows} for section in compare_reports(reports)
    }


def test_each_report_is_compared_with_the_first() -> None:
    """An error has a difference and a factor, a cosine a difference; the first has neither."""
    rows = rows_of(quick(0.4), quick(0.1), quick(0.8))["accuracy"]
    mse, cosine = rows["mse"], rows["cosine"]
    assert mse.values == (0.4, 0.1, 0.8)
    assert [mse.difference(n) for n in range(3)] == pytest.approx([None, -0.3, 0.4])
    assert [mse.factor(n) for n in range(3)] == pytest.approx([None, 0.25, 2])
    assert (cosine.difference(1), cosine.factor(1)) == (0, None)


def test_what_was_not_measured_has_no_difference() -> None:
    """Null, NaN and a missing key are None and not subtracted; zero has no multiple."""
    without = quick(None, accuracy={"avg_mse": None, "kl": float("nan")})
    rows = rows_of(quick(0.4), without, quick(0.2))["accuracy"]
    assert rows["mse"].values == (0.4, None, 0.2)
    assert (rows["mse"].difference(1), rows["mse"].factor(1)) == (None, None)
    assert rows["kl"].values == (0.2, None, 0.2)
    assert rows["hidden_mse"].values == (0.01, None, 0.01)
    perfect = rows_of(quick(0.0), quick(0.2))["accuracy"]["mse"]
    assert (perfect.difference(1), perfect.factor(1)) == (0.2, None)


def test_measures_that_nobody_has_are_left_out() -> None:
    """No row of dashes; the original scripts' reports have fewer measures than ours."""
    original = {"accuracy": {"avg_mse": 0.3, "avg_cosine_similarity": 0.9}}
    assert set(rows_of(original, original)["accuracy"]) == {"mse", "cosine"}
    assert "local_mse" not in rows_of(original, original)


def test_layers_are_matched_by_their_index() -> None:
    """Layer 2 against layer 2, in number order; a layer that one has not is None there."""
    own = [{"layer": n, "mse": n / 100, "relative": 0.5} for n in (2, 10)]
    rows = rows_of(quick(local_errors=own), quick(local_errors=own[:1]))
    assert list(rows["local_mse"]) == ["2", "10"]
    assert rows["local_mse"]["2"].values == (0.02, 0.02)
    assert rows["local_mse"]["10"].values == (0.1, None)
    assert rows["local_relative"]["2"].values == (0.5, 0.5)


def test_tests_are_compared_where_two_are_full() -> None:
    """Scores with their words, the verdict, each layer alone; nothing of it beside one full."""
    rows = rows_of(full(0.4, 0.6), full(0.1, 1.0))
    assert rows["tests"]["overall_status"].words == ("NOT_READY", "NOT_READY")
    assert set(TESTS) < set(rows["tests"])
    generation = rows["tests"]["Generation Quality"]
    assert (generation.words, generation.values) == (("WARNING", "WARNING"), (0.6, 1.0))
    assert generation.difference(1) == pytest.approx(0.4)
    assert rows["full"]["similarity"].values == (0.6, 1.0)
    assert list(rows["alone_mse"]) == ["2", "10"]
    assert rows["alone_mse"]["10"].factor(1) == pytest.approx(0.25)
    assert not {"tests", "full", "alone_mse"} & set(rows_of(full(), quick()))
    third = rows_of(full(), quick(), full())["tests"]["Generation Quality"]
    assert third.values == (0.6, None, 0.6)


def test_equal_findings_are_told_once() -> None:
    """With everyone who has them, in order; another text is another finding."""
    one, other = {"code": "DIRECTION", "text": "wrong"}, {"code": "DIRECTION", "text": "no"}
    found = shared_findings([quick(findings=[one]), quick(findings=[other, one]), quick()])
    assert [(each.text, each.places) for each in found] == [("wrong", (0, 1)), ("no", (1,))]


def test_same_conditions_raise_no_warning() -> None:
    """Quick and full have the same yardstick; a checkpoint without numbers compares with none."""
    broken = quick(None, residual=None)
    assert not_comparable([quick(), full(), broken]) == []


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"residual": "keep"}, {"residual": "drop"}, "residual rules differ: A keep, B drop"),
        (
            {"diagnostic": {"model_info": {"base_model": "x"}}},
            {"diagnostic": {"model_info": {"base_model": "y"}}},
            "base models differ: A x, B y",
        ),
        ({"base_revision": "1"}, {"base_revision": "2"}, "base models differ: A 1, B 2"),
        ({"diagnostics_version": 1}, {"diagnostics_version": 2}, "versions differ: A 1, B 2"),
        ({"probe_texts": []}, {"probe_texts": ["x"]}, "probe texts differ: A the guide's, B"),
    ],
)
def test_other_conditions_are_warned_of(
    first: dict[str, Any], second: dict[str, Any], told: str
) -> None:
    """Another base, rule, set of probes or version: one line that says who has which."""
    (warning,) = not_comparable([quick(**first), quick(**second)])
    assert warning.startswith("the numbers are not comparable, ")
    assert told in warning


def test_one_base_under_two_names_is_one_base() -> None:
    """The revision decides where all have it; a name alone says nothing then."""
    hub = quick(base_revision="r")
    folder = quick(base_revision="r", diagnostic={"model_info": {"base_model": "/m/llama"}})
    assert not_comparable([hub, folder]) == []


def test_letters_go_on_after_z() -> None:
    """As spreadsheets name their columns."""
    assert [letter(n) for n in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]
