"""Good checkpoints are kept from the trainer's rotation: real files, both engines."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from keeping import KIB, Keep, tree_of

from nptwatch.npt.files import base_model_of, fingerprint, step_of
from nptwatch.settings import KeptSettings
from nptwatch.store.records import KeptState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from nptwatch.store.engine import Database

WANTED, KEPT, RELEASED = KeptState.WANTED, KeptState.KEPT, KeptState.RELEASED


@pytest.fixture
def keep(database: Database, tmp_path: Path) -> Keep:
    """Give a place with nothing in it."""
    return Keep(database, tmp_path)


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder on another disk than the test's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shared = f"/dev/shm/nptwatch-{os.getpid()}-{folder.name}"  # noqa: S108 - a disk of its own
    os.mkdir(shared)  # noqa: PTH102 - as it stands
    assert os.stat(shared).st_dev != folder.stat().st_dev  # noqa: PTH116 - as it stands
    folder.rmdir()
    folder.symlink_to(shared)
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    os.rmdir(shared)  # noqa: PTH106 - as it stands


@pytest.mark.both_engines
def test_a_good_checkpoint_outlives_the_trainers_rotation(keep: Keep) -> None:
    """It is there under another name with a card of its numbers, hash and base, and a pointer."""
    keep.checkpoint("checkpoint-100", 0.7)
    good = keep.checkpoint("checkpoint-200", 0.08)
    content, hashed = good.read_bytes(), fingerprint(good)
    keep.keeper().turn()
    keep.rotate(good)

    assert keep.states() == {200: KEPT}
    kept = keep.file(200)
    assert kept.read_bytes() == content
    assert keep.card(200) | {"because": "", "host": ""} == {
        "run": "run1",
        "run_path": str(keep.root / "run1"),
        "step": 200,
        "because": "",
        "grade": "GOOD",
        "mse": 0.08,
        "cosine": 0.97,
        "kl": None,
        "top1_agreement": None,
        "relative_mse": None,
        "perplexity_ratio": None,
        "residual": None,
        "overall_status": None,
        "avg_score": None,
        "measured_at": "2026-11-20T12:00:00+00:00",
        "base_model": "base/of-run",
        "base_revision": "base-1",
        "fingerprint": hashed,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "how": "link",
        "source": str(good),
        "host": "",
    }
    assert keep.card(200)["because"] == "reached GOOD, new best"
    pointer = keep.pointer()
    assert pointer is not None
    assert (pointer["path"], pointer["step"], pointer["mse"]) == (str(kept), 200, 0.08)
    assert keep.json(kept.parents[1] / "card.json") == keep.json(type(kept)(pointer["card"]))


def test_a_kept_file_tells_its_step_and_base(keep: Keep) -> None:
    """`nptwatch full` needs neither the run's folder nor a flag to measure it."""
    keep.checkpoint("checkpoint-200", 0.08)
    keep.keeper().turn()
    kept = keep.file(200)
    assert (step_of(kept), base_model_of(kept, kept.parent)) == (200, "base/of-run")


def test_nothing_is_written_below_a_watched_root(keep: Keep) -> None:
    """Neither content nor time of anything of the trainer's changes; a link is one more name."""
    for name in ("checkpoint-100", "best"):
        keep.checkpoint(name, 0.08 if name == "best" else 0.09)
    before = tree_of(keep.root)
    folders = {path: path.stat().st_mtime_ns for path in keep.root.rglob("*") if path.is_dir()}
    keep.keeper().turn()
    assert keep.states() == {100: KEPT, None: KEPT}
    assert tree_of(keep.root) == before
    assert folders == {path: path.stat().st_mtime_ns for path in folders}


def test_numbered_steps_are_linked_and_mutable_names_copied(keep: Keep) -> None:
    """best/ is written again and again, in place: another name of it would be rewritten too."""
    numbered = keep.checkpoint("checkpoint-100", 0.09)
    best = keep.checkpoint("best", 0.08)
    keep.keeper().turn()
    assert keep.file(100).samefile(numbered)
    assert not keep.file(None).samefile(best)
    before = keep.file(None).read_bytes()
    best.write_bytes(b"the next best")
    assert keep.file(None).read_bytes() == before


def test_across_disks_a_copy_is_made(database: Database, tmp_path: Path, elsewhere: Path) -> None:
    """Where no link is possible the bytes are copied; `kept/` itself may be a link."""
    keep = Keep(database, tmp_path, elsewhere)
    good = keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    assert keep.row(100).file is not None
    assert keep.card(100)["how"] == "copy"
    assert keep.file(100).read_bytes() == good.read_bytes()
    assert keep.file(100).stat().st_mtime_ns == good.stat().st_mtime_ns


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (KeptSettings(), {200: "reached GOOD, new best", 250: "new best", 400: "reached EXCELLENT, new best", 100: "new best"}),
        (KeptSettings(on_new_best="never"), {200: "reached GOOD", 400: "reached EXCELLENT"}),
        (KeptSettings(on_grade="never"), {200: "new best", 250: "new best", 400: "new best", 100: "new best"}),
        (KeptSettings(on_grade="EXCELLENT", on_new_best="EXCELLENT"), {400: "reached EXCELLENT, new best"}),
        (KeptSettings(max_gib=0), {}),
    ],
)  # fmt: skip
def test_what_is_kept_follows_the_settings(
    keep: Keep, settings: KeptSettings, wanted: dict[int, str]
) -> None:
    """A grade that is reached from below, and the lowest MSE so far; never one that is worse."""
    keep.settings = settings
    for step, mse in ((50, 0.9), (100, 0.3), (200, 0.08), (250, 0.07), (300, 0.09), (400, 0.005)):
        keep.checkpoint(f"checkpoint-{step}", mse)
    assert {row.step: row.because for row in keep.store.rows()} == wanted


def test_a_late_result_reaches_nothing_but_may_be_the_best(keep: Keep) -> None:
    """The status stays with the newest step; the lowest MSE counts whatever its step."""
    keep.checkpoint("checkpoint-300", 0.08)
    keep.checkpoint("checkpoint-200", 0.09)
    keep.checkpoint("checkpoint-100", 0.07)
    assert {row.step: row.because for row in keep.store.rows()} == {
        300: "reached GOOD, new best",
        100: "new best",
    }


def test_a_turn_that_follows_another_changes_nothing(keep: Keep) -> None:
    """Any number of turns, by whomever, leave what the first has made."""
    keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    files, rows = tree_of(keep.folder), keep.store.rows()
    for _ in range(3):
        keep.keeper().turn()
    assert (tree_of(keep.folder), keep.store.rows()) == (files, rows)


def test_where_nothing_is_wanted_no_folder_is_made(keep: Keep) -> None:
    """Most state folders never need it."""
    keep.checkpoint("checkpoint-100", 0.9)
    assert keep.keeper().turn()
    assert not keep.folder.exists()


def test_a_full_diagnostic_that_comes_later_is_on_the_card(keep: Keep, database: Database) -> None:
    """Card and pointer have the newest numbers; what only the quick one gave stays."""
    keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    from stocking import FULL

    keep.queue.ask(str(keep.file(100)), FULL, because="test")
    keep.measure(0.08, overall_status="READY", avg_score=0.9)
    keep.keeper().turn()
    pointer = keep.pointer()
    assert pointer is not None
    for told in (keep.card(100), pointer):
        assert (told["overall_status"], told["avg_score"], told["mse"]) == ("READY", 0.9, 0.08)


# --- room


def test_former_bests_make_room_first_and_best_and_newest_good_never(keep: Keep) -> None:
    """In bytes; of equals the oldest goes first; the trainer's own files are not touched."""
    for step, mse in ((100, 0.4), (200, 0.3), (300, 0.09), (400, 0.08), (500, 0.005), (600, 0.004)):
        keep.checkpoint(f"checkpoint-{step}", mse)
    keep.keeper().turn()
    assert set(keep.states().values()) == {KEPT}
    size = keep.file(100).stat().st_size
    order = []
    for room in (5, 4, 3, 2, 1):
        keep.keeper(max_gib=(room * size + 1) / KIB**3).turn()
        gone = {step for step, state in keep.states().items() if state is RELEASED}
        order.append(sorted(gone - {step for steps in order for step in steps}))
    # 300 and 500 reached a grade, 600 is best and newest GOOD
    assert order == [[100], [200], [400], [300], [500]]
    assert [keep.row(600).state, keep.row(600).error] == [KEPT, None]
    assert len(list(keep.folder.rglob("npt_weights.pt"))) == 1
    assert len(list(keep.root.rglob("npt_weights.pt"))) == 6


def test_what_is_never_released_keeps_a_new_one_out_visibly(
    keep: Keep, logs: Sequence[Mapping[str, Any]]
) -> None:
    """Two runs' bests fill the cap: the third's is refused with what to do, told once."""
    for run in ("run1", "run2", "run3"):
        keep.checkpoint("checkpoint-100", 0.08, run=run)
    size = keep.row(100, "run1").size_bytes
    keeper = keep.keeper(max_gib=(2 * size + 1) / KIB**3)
    for _ in range(3):
        keeper.turn()
    states = sorted(row.state for row in keep.store.rows())
    assert states == [KEPT, KEPT, WANTED]
    (refused,) = (row for row in keep.store.rows() if row.state is WANTED)
    assert refused.error is not None
    assert "kept.max_gib" in refused.error
    assert [one["event"] for one in logs].count("keep_failed") == 1
    keep.keeper().turn()
    assert {row.state for row in keep.store.rows()} == {KEPT}


def test_an_older_best_that_has_no_room_is_not_made(keep: Keep) -> None:
    """What would be the first to go is not kept at all, nor tried for ever."""
    keep.checkpoint("checkpoint-100", 0.09)
    keep.checkpoint("checkpoint-200", 0.08)
    size = keep.row(100).size_bytes
    keep.keeper(max_gib=(size + 1) / KIB**3).turn()
    assert keep.states() == {100: RELEASED, 200: KEPT}
    assert len(keep.files()) == 4  # card, config, weights, pointer


@pytest.mark.both_engines
def test_what_a_person_releases_is_gone_and_stays_so(keep: Keep) -> None:
    """Files, pointer and folder go; the next measurement does not bring it back."""
    good = keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    assert keep.store.release([keep.row(100).kept_id, 99], "by a test") == [keep.row(100).kept_id]
    keep.keeper().tidy()
    assert (keep.files(), keep.pointer()) == ([], None)
    assert good.exists()
    keep.keeper().turn()
    assert keep.states() == {100: RELEASED}
    assert keep.row(100).file is None


# --- measuring what is kept


@pytest.mark.both_engines
def test_a_kept_checkpoint_can_be_measured_again(keep: Keep) -> None:
    """When the trainer's file is gone its job claims the kept one; waiting jobs stay queued."""
    from stocking import FULL, claimed

    good = keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    keep.queue.ask(str(good), FULL, because="test")
    keep.rotate(good)
    claim = claimed(keep.queue)
    assert claim.paths == (str(keep.file(100)),)
    assert keep.queue.release(claim, "w", reason="test")
    again = keep.queue.ask(str(keep.file(100).parent), FULL, because="test")
    assert (again.job_id, again.step) == (claim.job_id, 100)


def test_the_history_knows_what_is_kept(keep: Keep, database: Database) -> None:
    """Rows have the path, and the checkpoint is found by it."""
    from nptwatch.store.history import History

    keep.checkpoint("checkpoint-100", 0.7)
    keep.checkpoint("checkpoint-200", 0.08)
    keep.keeper().turn()
    history = History(database)
    assert {row.step: row.kept_path for row in history.history("run1")} == {
        100: None,
        200: str(keep.file(200)),
    }
    assert history.show(str(keep.file(200)))[0].step == 200


@pytest.mark.both_engines
def test_what_is_kept_is_not_forgotten(keep: Keep, database: Database) -> None:
    """Its row outlives the retention; that of something released goes with its checkpoint."""
    from datetime import timedelta

    from nptwatch.store.engine import utc_now
    from nptwatch.store.retention import Retention

    for step, mse in ((100, 0.4), (200, 0.35), (300, 0.3), (400, 0.25)):
        weights = keep.checkpoint(f"checkpoint-{step}", mse)
        keep.keeper().turn()
        keep.rotate(weights)
    keep.store.release([keep.row(300).kept_id], "by a test")
    keep.keeper().turn()
    later = Retention(database, clock=lambda: utc_now() + timedelta(days=90))
    assert later.forget(30, pause=lambda _: False).checkpoints == 1
    assert keep.states() == {100: KEPT, 200: KEPT, 400: KEPT}
