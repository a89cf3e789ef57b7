"""`nptwatch rerun` on a real database, called in this process; and what `jobs` says of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, claimed, measured, no_alerts, path_of, whole

from nptwatch.cli.main import main
from nptwatch.store.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.engine import Database

WEIGHTS = path_of("a", "checkpoint-100")


@pytest.fixture
def queue(database: Database) -> Queue:
    """Give a queue with the command's own clock."""
    return Queue(database)


@pytest.fixture
def call(
    tmp_path: Path, catalog: Catalog, queue: Queue, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """Give a function that calls the command; one checkpoint is known and measured quickly."""
    catalog.admit(whole(), QUICK)
    queue.finish(claimed(queue), "w", measured("FAIR", 0.3), no_alerts)

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        assert main([*arguments, "--state-dir", str(tmp_path)]) == code
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def test_a_full_diagnostic_is_asked_and_told(
    call: Callable[..., tuple[str, str]], queue: Queue
) -> None:
    """Queued, goes first, at work, known with its grade and when: in words and as JSON."""
    assert call("rerun", WEIGHTS) == ("a step 100 (full, job 2): queued, goes first\n", "")
    assert "was queued, goes first now" in call("rerun", WEIGHTS)[0]
    claim = claimed(queue, "worker-7")
    assert claim.profile == "full"
    assert "is being measured by worker-7" in call("rerun", "1")[0]
    queue.finish(claim, "worker-7", measured("FAIR", 0.3), no_alerts)
    told = "measured already: FAIR (2026-11-20T12:00:00Z); `nptwatch show 2`"
    assert told in call("rerun", WEIGHTS)[0]
    (row,) = json.loads(call("rerun", WEIGHTS, "--json")[0])
    assert (row["did"], row["grade"], row["job_id"]) == ("known", "FAIR", 2)
    assert row["measured_at"].startswith("2026-11-20T12:00:00")


def test_the_wish_is_told_by_jobs(call: Callable[..., tuple[str, str]]) -> None:
    """Profile and reason of each job."""
    call("rerun", WEIGHTS)
    jobs = json.loads(call("jobs", "--json")[0])
    assert {(job["profile"], job["asked_because"]) for job in jobs} == {
        ("quick", "new checkpoint"),
        ("full", "asked with rerun"),
    }
    shown = call("jobs")[0]
    assert "full     queued" in shown
    assert "asked with rerun" in shown


def test_what_is_queued_is_told_though_another_is_unknown(
    call: Callable[..., tuple[str, str]], queue: Queue
) -> None:
    """The error names the fix; nobody wonders what became of the first."""
    told, error = call("rerun", WEIGHTS, "/exp/a/nothing", code=2)
    assert told == "a step 100 (full, job 2): queued, goes first\n"
    assert "nothing is known of '/exp/a/nothing'" in error
    assert "nptwatch full /exp/a/nothing" in error
    assert claimed(queue).profile == "full"


def test_a_folder_of_several_checkpoints_is_not_guessed_from(
    call: Callable[..., tuple[str, str]], catalog: Catalog
) -> None:
    """Two weights files side by side: the command wants one named."""
    beside = WEIGHTS.replace("npt_weights.pt", "npt_weights.safetensors")
    catalog.admit(whole(step=100, content="other", path=beside), QUICK)
    _, error = call("rerun", WEIGHTS.rpartition("/")[0], code=2)
    assert "names 2 checkpoints: name one file" in error
