"""Which files are checkpoints, of which run, and what is left out."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from nptwatch.globs import PathGlobs
from nptwatch.settings import WatchSettings
from nptwatch.watch.discovery import Finder
from nptwatch.watch.sighting import run_of


def touch(root: Path, *paths: str) -> None:
    """Make small files."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def found(*roots: Path, **changes: object) -> list[str]:
    """Return what is found, relative to the first root where it lies below it."""
    settings = WatchSettings.model_validate({"roots": roots} | changes)
    return sorted(
        os.path.relpath(path, roots[0])
        for sweep in Finder(settings).sweep()
        for path in sweep.files
    )


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**", "a/b/c.pt", True),
        ("debug_*", "x/debug_1/c.pt", True),
        ("debug_*", "x/y/c.pt", False),
        ("old/*/final", "old/run/final/npt_weights.pt", True),
        ("old/*/final", "x/old/run/final/npt_weights.pt", False),
        ("old/**", "old/a/b.pt", True),
        ("old/**", "older/a.pt", False),
        ("**/tmp", "a/b/tmp/c.pt", True),
        ("**/tmp", "tmp/c.pt", True),
        ("/runs", "runs/a.pt", True),
        ("/runs", "x/runs/a.pt", False),
        ("runs/", "x/runs/a.pt", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("layer_[0-3]*", "layer_2_x/a.pt", True),
        ("layer_[!0-3]*", "layer_2_x/a.pt", False),
        ("a+b(c", "a+b(c", True),
        ("a*", "b/ac/d", True),
        ("x/a*", "x/b/ac", False),
    ],
)
def test_globs(pattern: str, path: str, matches: bool) -> None:
    """`*` stays within a name, `**` crosses folders, no slash means any depth."""
    assert PathGlobs([pattern]).match(path) is matches


@pytest.mark.parametrize(
    ("path", "run"),
    [
        ("/e/run/checkpoints/checkpoint-5/npt_weights.pt", "/e/run"),
        ("/e/run/checkpoints/any/npt_weights.pt", "/e/run"),
        ("/e/run/checkpoints/npt_weights.pt", "/e/run"),
        ("/e/run/checkpoint-5/npt_weights.pt", "/e/run"),
        ("/e/run/final/npt_weights.pt", "/e/run"),
        ("/e/run/best/npt_weights.pt", "/e/run"),
        ("/e/run/accumulated_npt_weights.pt", "/e/run"),
        ("/e/run/other/npt_weights.pt", "/e/run/other"),
        (
            "/e/sequential/layer_3_x/checkpoints/checkpoint-5/npt_weights.pt",
            "/e/sequential/layer_3_x",
        ),
    ],
)
def test_run_of_a_file(path: str, run: str) -> None:
    """A run is the folder that holds `checkpoints`, numbered, final or best folders."""
    assert run_of(path) == run


def test_only_weights_are_found(tmp_path: Path) -> None:
    """Training states are never taken for weights, even where a glob would; nor hidden or .tmp."""
    touch(
        tmp_path,
        "r/checkpoints/checkpoint-1/npt_weights.pt",
        "r/checkpoints/checkpoint-1/training_state.pt",
        "r/checkpoints/checkpoint-1/multi_layer_state.pt",
        "r/checkpoints/checkpoint-2.tmp/npt_weights.pt",
        "r/checkpoints/.hidden/npt_weights.pt",
        "r/checkpoints/checkpoint-3/.npt_weights.pt",
        "r/checkpoints/checkpoint-3/npt_weights.pt.tmp",
        "r/accumulated_npt_weights.pt",
        "r/npt_weights.safetensors",
    )
    wanted = [
        "r/accumulated_npt_weights.pt",
        "r/checkpoints/checkpoint-1/npt_weights.pt",
        "r/npt_weights.safetensors",
    ]
    assert found(tmp_path) == wanted
    assert "training_state" not in " ".join(found(tmp_path, weights=("*.pt",)))
    assert "multi_layer_state" not in " ".join(found(tmp_path, weights=("*.pt",)))


def test_include_and_exclude(tmp_path: Path) -> None:
    """A file must match an include; an excluded folder is not even listed."""
    touch(tmp_path, "a/npt_weights.pt", "b/npt_weights.pt", "b/old/npt_weights.pt")
    assert found(tmp_path, include=("b/**",)) == ["b/npt_weights.pt", "b/old/npt_weights.pt"]
    assert found(tmp_path, exclude=("old",)) == ["a/npt_weights.pt", "b/npt_weights.pt"]
    finder = Finder(WatchSettings(roots=(tmp_path,), exclude=("b",)))
    assert finder.sweep()[0].folders == 2
    assert finder.look_in(str(tmp_path / "b/old"), deep=True).files == {}


def test_links_make_no_loop_and_no_second_file(tmp_path: Path) -> None:
    """`latest` adds nothing, a loop ends, a link outwards is followed to its real path."""
    root, away = tmp_path / "root", tmp_path / "away"
    touch(root, "r/checkpoints/checkpoint-1/npt_weights.pt")
    touch(away, "checkpoint-2/npt_weights.pt")
    (root / "a-latest").symlink_to(root / "r/checkpoints/checkpoint-1")
    (root / "r/up").symlink_to(root)
    (root / "r/dangling").symlink_to(root / "nowhere")
    (root / "r2").mkdir()
    (root / "r2/checkpoints").symlink_to(away)
    (root / "r2/npt_weights.pt").symlink_to(root / "r/checkpoints/checkpoint-1/npt_weights.pt")
    sweep = Finder(WatchSettings(roots=(root,))).sweep()[0]
    one, two = (
        root / "r/checkpoints/checkpoint-1/npt_weights.pt",
        away / "checkpoint-2/npt_weights.pt",
    )
    assert {p: f.run_name for p, f in sweep.files.items()} == {str(one): "r", str(two): "r2"}
    assert sweep.links == {str(away): str(root / "r2/checkpoints")}


def test_nested_roots_share_no_file(tmp_path: Path) -> None:
    """A file below two roots belongs to the first that reaches it."""
    touch(tmp_path, "inner/r/npt_weights.pt", "inner2/r/npt_weights.pt")
    settings = WatchSettings(roots=(tmp_path, tmp_path / "inner"), exclude=("inner2",))
    first, second = Finder(settings).sweep()
    assert list(first.files) == [str(tmp_path / "inner/r/npt_weights.pt")]
    assert second.files == {}


def test_root_may_be_a_run_or_a_checkpoints_folder(tmp_path: Path) -> None:
    """Whatever level is watched, the run has its folder's name."""
    touch(tmp_path, "e/run/checkpoints/checkpoint-1/npt_weights.pt")
    for root, name in [("e", "run"), ("e/run", "run"), ("e/run/checkpoints", "run")]:
        sweep = Finder(WatchSettings(roots=(tmp_path / root,))).sweep()[0]
        (file,) = sweep.files.values()
        assert (file.run_name, file.run_path) == (name, str(tmp_path / "e/run"))


def test_absent_and_empty_roots_are_unreachable(tmp_path: Path) -> None:
    """A mount point without its share is an empty folder: both are said, none is an error."""
    (tmp_path / "empty").mkdir()
    settings = WatchSettings(roots=(tmp_path / "absent", tmp_path / "empty"))
    absent, empty = Finder(settings).sweep()
    assert absent.unreachable == "No such file or directory"
    assert empty.unreachable == "it is empty"


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    """A named pipe called npt_weights.pt is no checkpoint; reading it would block for ever."""
    os.mkfifo(tmp_path / "npt_weights.pt")
    done = threading.Event()

    def look() -> None:
        assert found(tmp_path) == []
        done.set()

    threading.Thread(target=look, daemon=True).start()
    assert done.wait(5)


def test_a_file_that_no_database_can_hold_costs_only_itself(tmp_path: Path) -> None:
    """A time beyond what 64 bits count, a name that is no UTF-8; the others are found."""
    odd, fine = tmp_path / "run/odd/npt_weights.pt", tmp_path / "run/fine/npt_weights.pt"
    raw = os.fsencode(tmp_path) + b"/run\xff"
    for folder in (odd.parent, fine.parent, Path(os.fsdecode(raw))):
        folder.mkdir(parents=True)
        (folder / "npt_weights.pt").write_bytes(b"x")
    os.utime(odd, ns=(2**63, 2**63))
    if odd.stat().st_mtime_ns < 2**63:
        pytest.skip("this file system has no such times")
    (sweep,) = Finder(WatchSettings(roots=(tmp_path,))).sweep()
    assert list(sweep.files) == [str(fine)]
    assert sorted(reason.partition(":")[0] for reason in sweep.skipped.values()) == [
        "its path is not UTF-8",
        "its time of change is beyond the year 2262",
    ]
    json.dumps(sweep.skipped).encode()
