"""What one host calls another's folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nptwatch.diagnostics.identity import settings_hash
from nptwatch.errors import ConfigError
from nptwatch.machine_settings import LabelRule, LabelSettings
from nptwatch.paths import PathMap
from nptwatch.service.build import build_watcher, open_stores
from nptwatch.settings import QUICK, Settings, WatchSettings, load_settings
from nptwatch.watch.needs import Needs
from nptwatch.watch.survey import survey

NAMES = st.text("abc", min_size=1, max_size=2)
FOLDERS = st.lists(NAMES, max_size=4).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(
    ("stored", "here"),
    [
        ("/data/exp/run1", "/mnt/lab/exp/run1"),
        ("/data", "/mnt/lab"),
        ("/data/big/x", "/big/x"),  # the longer entry
        ("/database/x", "/database/x"),  # only whole names
        ("/other", "/other"),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
    ],
)
def test_beginnings_are_translated(stored: str, here: str) -> None:
    """By the longest entry, name by name; what no entry covers stays."""
    paths = PathMap([("/data/", "/mnt/lab"), ("/data/big", "/big/")])
    assert paths.here(stored) == here
    assert paths.stored(here) == stored


def test_the_topmost_folder_can_be_mapped() -> None:
    """An export that is the root of its server is as good as any."""
    paths = PathMap([("/", "/mnt/server")])
    assert (paths.here("/exp/a"), paths.here("/")) == ("/mnt/server/exp/a", "/mnt/server")
    assert (paths.stored("/mnt/server/exp/a"), paths.stored("/mnt/server")) == ("/exp/a", "/")


@given(pairs=st.lists(st.tuples(FOLDERS, FOLDERS), max_size=3), path=FOLDERS)
def test_a_named_path_comes_back(pairs: list[tuple[str, str]], path: str) -> None:
    """What the database calls a path leads back to it, or the path says that it has no name."""
    paths = PathMap(pairs)
    assert paths.is_named(path) == (paths.here(paths.stored(path)) == path)
    if not pairs:
        assert paths.stored(path) == paths.here(path) == path
    if len(pairs) == 1:
        ((stored, here),) = pairs
        taken = Path(path).is_relative_to(stored) and not Path(path).is_relative_to(here)
        assert paths.is_named(path) == (not taken)


def test_symlinks_of_this_host_are_one_folder(tmp_path: Path) -> None:
    """The watcher sees real paths, people type the link: both are the same folder."""
    real, link = tmp_path / "export", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    paths = PathMap([("/data", str(link))])
    assert paths.stored(f"{link}/run1") == paths.stored(f"{real}/run1") == "/data/run1"
    assert paths.here("/data/run1") == f"{real}/run1"


def test_a_path_map_is_read_and_anchored(tmp_path: Path) -> None:
    """From a file, relative to its folder, and from the environment as JSON."""
    file = tmp_path / "nptwatch.toml"
    file.write_text('path_map = [{ stored = "/data", here = "lab" }]\n')
    assert load_settings(file, env={}).paths.here("/data/x") == str(tmp_path / "lab/x")
    env = {"NPTWATCH_PATH_MAP": '[{"stored": "/data", "here": "/env"}]'}
    assert load_settings(file, env=env).paths.here("/data/x") == "/env/x"


@pytest.mark.parametrize(
    ("path_map", "told"),
    [
        ('[{ stored = "data", here = "/lab" }]', "match pattern"),
        ('[{ stored = "/data", here = "/a" }, { stored = "/data/", here = "/b" }]', "/data twice"),
        ('[{ stored = "/a", here = "/lab" }, { stored = "/b", here = "/lab" }]', "/lab twice"),
        ('[{ from = "/a", to = "/lab" }]', "path_map"),
    ],
)
def test_a_wrong_path_map_is_refused(tmp_path: Path, path_map: str, told: str) -> None:
    """A folder has one name here and one in the database."""
    file = tmp_path / "nptwatch.toml"
    file.write_text(f"path_map = {path_map}\n")
    with pytest.raises(ConfigError, match=told):
        load_settings(file, env={})


def test_one_base_has_one_hash() -> None:
    """Hosts that call the base's folder by different names ask for the same measurement."""
    hashes = {
        settings_hash(Settings.model_validate({"base": {"model": model}, "path_map": pairs}), QUICK)
        for model, pairs in [
            ("/data/models/base", []),
            ("/mnt/lab/models/base", [{"stored": "/data", "here": "/mnt/lab"}]),
        ]
    }
    assert len(hashes) == 1


def test_a_root_whose_name_is_taken_is_refused(tmp_path: Path) -> None:
    """A watcher would store this host's /taken under a name that is another folder's."""
    taken, lab = tmp_path / "taken", tmp_path / "lab"
    taken.mkdir()
    settings = Settings.model_validate(
        {
            "state_dir": tmp_path / "state",
            "watch": {"roots": [taken]},
            "path_map": [{"stored": str(taken), "here": str(lab)}],
        }
    )
    stores = open_stores(settings, migrate=True)
    with pytest.raises(ConfigError, match=f"{taken} has no name in the database"):
        build_watcher(settings, stores, lambda: None)
    stores.close()


def test_links_to_folders_without_a_name_are_left_out(tmp_path: Path) -> None:
    """What they hold would be stored as another folder's; `scan --dry-run` says so."""
    root, taken = tmp_path / "root", tmp_path / "taken"
    for run in (root / "run1", taken):
        (run / "checkpoint-1").mkdir(parents=True)
        (run / "checkpoint-1/npt_weights.pt").write_bytes(b"weights")
    (root / "run2").symlink_to(taken)
    paths = PathMap([(str(taken), str(tmp_path / "lab"))])
    settings = WatchSettings(roots=(root,))
    verdicts = survey(settings, is_named=paths.is_named)
    told = {
        Path(each.path).parent.parent.name: (str(each.action), each.reason) for each in verdicts
    }
    assert told["run1"][0] == "wait"
    assert told["run2"] == (
        "skip",
        f"{taken}/checkpoint-1/npt_weights.pt has no name in the database: add it to path_map",
    )
    assert [str(each.action) for each in survey(settings)] == ["wait", "wait"]


@pytest.mark.parametrize(
    ("run", "base", "gib"),
    [("a", "org/x-70B-y", 40), ("wide-1", "org/x", 24), ("wide-1", None, 24), ("a", "org/x", 1.5)],
)
def test_rules_say_what_jobs_need(run: str, base: str | None, gib: float) -> None:
    """The first that matches counts, else what is set for all; zero is no need."""
    rules = (
        LabelRule(base="*70B*", min_gpu_gib=40),
        LabelRule(run="wide-*", min_gpu_gib=24),
        LabelRule(run="any", base="*", min_gpu_gib=0),
    )
    needs = Needs(LabelSettings(min_gpu_gib=1.5, rules=rules))
    assert needs.min_gpu_mib(run, base) == gib * 1024
    assert needs.min_gpu_mib("any", base or "b") in {None, 40 * 1024}
    assert Needs(LabelSettings(rules=rules), "org/70B").min_gpu_mib(run, base) == 40 * 1024
    assert Needs(LabelSettings()).min_gpu_mib(run, base) is None


def test_a_rule_for_nothing_is_refused() -> None:
    """It would hide the setting for all."""
    with pytest.raises(ValidationError, match=r"labels\.min_gpu_gib"):
        LabelRule(min_gpu_gib=1)
