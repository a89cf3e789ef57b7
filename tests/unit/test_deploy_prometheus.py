"""deploy/prometheus, by Prometheus' own checker, and its metrics by docs/metrics.md."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from deploying import (
    DEPLOY,
    ROOT,
    asked_for,
    checked,
    documented_metrics,
    promtool,
    undocumented,
    with_promtool,
)

FOLDER = DEPLOY / "prometheus"
RULES = FOLDER / "nptwatch.rules.yml"
RULE_TESTS = FOLDER / "nptwatch.rules.test.yml"


def alerts() -> list[dict[str, Any]]:  # Any: YAML
    """Give the alert rules."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@with_promtool
def test_prometheus_takes_its_files() -> None:
    """The scrape config, and the rules that it names."""
    said = checked(promtool, "check", "config", FOLDER / "prometheus.yml")
    assert f"SUCCESS: {len(alerts())} rules found" in said


@with_promtool
def test_every_rule_fires_when_it_should() -> None:
    """Promtool's own tests of the rules pass, and each rule is seen both quiet and firing."""
    said = checked(promtool, "test", "rules", RULE_TESTS)
    assert "SUCCESS" in said


def test_every_rule_is_tested_quiet_and_firing() -> None:
    """A rule without both would pass for one that works."""
    tests = [
        one
        for test in yaml.safe_load(RULE_TESTS.read_text())["tests"]
        for one in test["alert_rule_test"]
    ]
    quiet = {one["alertname"] for one in tests if not one["exp_alerts"]}
    firing = {one["alertname"] for one in tests if one["exp_alerts"]}
    assert quiet == firing == {rule["alert"] for rule in alerts()}
    assert len(alerts()) >= 10


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_rules_ask_for_documented_metrics(rule: dict[str, Any]) -> None:
    """Names and labels that docs/metrics.md promises, and a word on what to do."""
    assert undocumented(rule["expr"]) == []
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "fix"}


def test_the_check_of_metrics_can_fail() -> None:
    """A name or a label that nobody promised is found."""
    assert undocumented('max(rate(nptwatch_jobs{state="x"}[5m])) > nptwatch_workers') == []
    assert undocumented("nptwatch_gone > 1") == ["nptwatch_gone: []"]
    assert undocumented('nptwatch_jobs{step="1"}') == ["nptwatch_jobs: ['step']"]
    assert asked_for("a / on (job) b{c='d'}") == {"a": set(), "b": {"c"}}
    assert len(documented_metrics()) > 20


def test_the_target_is_where_the_docs_have_the_daemon_listen() -> None:
    """One address in the scrape config, the page and the settings' own example."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert job["job_name"] == "nptwatch"
    page = (ROOT / "docs/metrics.md").read_text()
    assert re.search(rf'^listen = "{re.escape(target)}"$', page, flags=re.MULTILINE)
