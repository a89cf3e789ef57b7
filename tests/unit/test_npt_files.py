"""Identity, integrity, step and base of checkpoint files; all of it on hostile input too."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nptwatch.errors import (
    CheckpointDeletedError,
    IncompleteCheckpointError,
    UnsafeCheckpointError,
)
from nptwatch.npt.files import (
    TrainingFacts,
    base_model_of,
    check_crc,
    fingerprint,
    step_of,
    training_facts,
)
from nptwatch.npt.training_state import MAX_OPCODES

GOLDEN = Path(__file__).parents[1] / "data/golden"
RUN = GOLDEN / "run/experiments/equivalence"
WEIGHTS = RUN / "checkpoints/checkpoint-300/npt_weights.pt"
UNKNOWN = TrainingFacts()


def zipped(path: Path, members: dict[str, bytes], *, compress: bool = False) -> Path:
    """Write an archive as torch.save does, or a compressed one."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def state(path: Path, pickled: bytes) -> Path:
    """Write a training state with this pickle."""
    return zipped(path, {"training_state/data.pkl": pickled})


# -- fingerprint -------------------------------------------------------------------------------


def test_copy_under_another_name_keeps_its_fingerprint(tmp_path: Path) -> None:
    """Identity is content: a copy has the same, and so has best/ of the golden run."""
    copy = tmp_path / "other.pt"
    shutil.copyfile(WEIGHTS, copy)
    assert fingerprint(copy) == fingerprint(WEIGHTS)
    assert fingerprint(copy).startswith("zip:")
    best, last = (RUN / f"checkpoints/{n}/npt_weights.pt" for n in ("best", "checkpoint-400"))
    assert fingerprint(best) == fingerprint(last) != fingerprint(WEIGHTS)


def test_archive_root_is_not_part_of_identity(tmp_path: Path) -> None:
    """torch.save names the root after the file; the same tensors keep their fingerprint."""
    one = zipped(tmp_path / "a.pt", {"a/data.pkl": b"p", "a/data/0": b"zero"})
    two = zipped(tmp_path / "b.pt", {"b/data.pkl": b"p", "b/data/0": b"zero"})
    other = zipped(tmp_path / "c.pt", {"c/data.pkl": b"p", "c/data/0": b"ZERO"})
    assert fingerprint(one) == fingerprint(two) != fingerprint(other)


def test_archive_without_crcs_is_told_by_its_bytes(tmp_path: Path) -> None:
    """A writer that switched CRCs off leaves zeros: the identity is that of all bytes."""
    paths = []
    for text in (b"one", b"two"):
        path = zipped(tmp_path / f"{text.decode()}.pt", {"a/data/0": text})
        crc = struct.pack("<I", zipfile.ZipFile(path).infolist()[0].CRC)
        path.write_bytes(path.read_bytes().replace(crc, bytes(4)))
        paths.append(path)
    first, second = map(fingerprint, paths)
    assert first.startswith("sha256:")
    assert first != second
    check_crc(paths[0])


def test_every_truncation_is_incomplete(tmp_path: Path) -> None:
    """No cut of a real checkpoint counts as whole."""
    data = WEIGHTS.read_bytes()
    path = tmp_path / "npt_weights.pt"
    cuts = random.Random(0).sample(range(len(data)), 60)  # noqa: S311 - places to cut
    for size in [0, 1, 4, 21, len(data) - 1, *cuts]:
        path.write_bytes(data[:size])
        with pytest.raises(IncompleteCheckpointError):
            fingerprint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "zero bytes"),
        (WEIGHTS.read_bytes()[:9000], "9000 bytes, no ZIP directory at the end: half-written"),
        (pickle.dumps({"a": 1}), "legacy pickle"),
        (bytes(100_000), "half-written"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"hello" * 50, "not a torch.save file"),
    ],
)
def test_what_is_not_whole_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    """The reason is in plain words and names the path."""
    path = tmp_path / "npt_weights.pt"
    path.write_bytes(content)
    with pytest.raises(IncompleteCheckpointError, match=words) as caught:
        fingerprint(path)
    assert str(path) in str(caught.value)


def test_absent_file_is_deleted(tmp_path: Path) -> None:
    """A file that is not there is no incomplete one."""
    with pytest.raises(CheckpointDeletedError):
        fingerprint(tmp_path / "npt_weights.pt")
    with pytest.raises(CheckpointDeletedError):
        check_crc(WEIGHTS / "npt_weights.pt")


def test_huge_directory_is_refused_unread(tmp_path: Path) -> None:
    """A directory that declares hundreds of megabytes is not read into memory."""
    path = tmp_path / "npt_weights.pt"
    size = 400 * 1024**2
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, size - 10, 0, 0))
    tracemalloc.start()
    with pytest.raises(UnsafeCheckpointError, match="ZIP directory"):
        fingerprint(path)
    assert tracemalloc.get_traced_memory()[1] < 1024**2
    tracemalloc.stop()


def safetensors(path: Path, payload: bytes, *, declared: int | None = None) -> Path:
    """Write a safetensors file whose header declares a size."""
    end = len(payload) if declared is None else declared
    header = json.dumps({"x": {"dtype": "U8", "shape": [end], "data_offsets": [0, end]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + payload)
    return path


def test_safetensors_must_have_the_size_that_its_header_says(tmp_path: Path) -> None:
    """One byte less or more is not whole; identity is that of all bytes."""
    path = tmp_path / "npt_weights.safetensors"
    first = fingerprint(safetensors(path, b"abcd"))
    assert first.startswith("sha256:")
    assert fingerprint(safetensors(path, b"abce")) != first
    check_crc(path)
    for declared in (3, 5):
        with pytest.raises(IncompleteCheckpointError, match="header says"):
            fingerprint(safetensors(path, b"abcd", declared=declared))
    for content in (b"", b"123", b"\xff" * 8 + b"{}", b"\x02" + bytes(7) + b"[]"):
        path.write_bytes(content)
        with pytest.raises(IncompleteCheckpointError):
            fingerprint(path)


# -- check_crc ---------------------------------------------------------------------------------


def test_flipped_bit_names_its_member(tmp_path: Path) -> None:
    """A flipped bit in a tensor leaves the fingerprint alone and fails the CRC check."""
    path = tmp_path / "npt_weights.pt"
    data = bytearray(WEIGHTS.read_bytes())
    with zipfile.ZipFile(WEIGHTS) as archive:
        offset = archive.getinfo("npt_weights/data/2").header_offset + 5000
    check_crc(WEIGHTS)
    data[offset] ^= 1
    path.write_bytes(data)
    assert fingerprint(path) == fingerprint(WEIGHTS)
    with pytest.raises(IncompleteCheckpointError, match="npt_weights/data/2"):
        check_crc(path)


def test_bomb_is_refused_uninflated(tmp_path: Path) -> None:
    """A compressed member is refused before a byte of it is inflated."""
    path = zipped(tmp_path / "b.pt", {"a/data/0": bytes(256 * 1024**2)}, compress=True)
    start = time.monotonic()
    with pytest.raises(UnsafeCheckpointError, match="compressed"):
        check_crc(path)
    assert time.monotonic() - start < 0.1


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    """Directory entries that share bytes declare more than the file holds."""
    path = zipped(tmp_path / "o.pt", {"a/data/0": b"x" * 5000})
    raw = path.read_bytes()
    at = raw.index(b"PK\x01\x02")
    entry, end = raw[at : raw.index(b"PK\x05\x06")], raw[raw.index(b"PK\x05\x06") :]
    end = end[:8] + struct.pack("<HHI", 9, 9, 9 * len(entry)) + end[16:]
    path.write_bytes(raw[:at] + 9 * entry + end)
    with pytest.raises(UnsafeCheckpointError, match="45000 bytes in a file of"):
        check_crc(path)


# -- training facts ----------------------------------------------------------------------------


def test_real_training_state_with_numpy_scalar_and_optimizer(tmp_path: Path) -> None:
    """The golden states hold numpy scalars and tensors; step and base are read all the same."""
    facts = training_facts(WEIGHTS.with_name("training_state.pt"))
    assert facts == TrainingFacts(global_step=300, model_name="base")


def test_namespace_and_ordered_dict_configs_are_understood(tmp_path: Path) -> None:
    """argparse.Namespace and OrderedDict are common ways to store the settings."""
    import collections

    for config in (
        argparse.Namespace(model_name="m"),
        collections.OrderedDict(model_name="m"),
        {"model_name": "m"},
    ):
        for protocol in range(2, 6):
            data = pickle.dumps({"config": config, "global_step": 70_000}, protocol)
            facts = training_facts(state(tmp_path / "training_state.pt", data))
            assert facts == TrainingFacts(global_step=70_000, model_name="m")


class Evil:
    """Runs a command when unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_training_state_never_runs(tmp_path: Path, protocol: int) -> None:
    """The pickle is read as data: its commands are not run, its plain values are read."""
    witness = tmp_path / "witness"
    data = pickle.dumps({"evil": Evil(f"touch {witness}"), "global_step": 5}, protocol)
    pickle.loads(data)  # noqa: S301 - shows that the command is a live one
    assert witness.exists()
    witness.unlink()
    facts = training_facts(state(tmp_path / "training_state.pt", data))
    assert not witness.exists()
    assert facts.global_step in ({None, 5} if protocol == 0 else {5})


HUGE_MEMO = b"\x80\x02}r\xff\xff\xff\xff."
LAUGHS = b"\x80\x02]" + b"".join(b"q%c(h%ch%ct" % (n, n, n) for n in range(200)) + b"."
NAMES = (
    b"\x80\x04X\x00\x00\x10\x00" + b"a" * 0x100000 + b"q\x01" + b"h\x01h\x01\x93" * 300_000 + b"."
)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(HUGE_MEMO, id="memo index that makes CPython allocate 68 GB"),
        pytest.param(LAUGHS, id="billion laughs"),
        pytest.param(NAMES, id="megabyte names, joined again and again"),
        pytest.param(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f", id="bytes of 2**63"),
        pytest.param(b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f.", id="frame of 2**63"),
        pytest.param(b"(" * 3_000_000, id="marks"),
        pytest.param(b"}" * 3_000_000 + b".", id="more opcodes than are followed"),
        pytest.param(b"L" + b"9" * 5_000_000 + b"L\n.", id="decimal of five million digits"),
        pytest.param(b".", id="empty stack"),
        pytest.param(b"\x80\x02}}s.", id="stack too short"),
        pytest.param(b"\x80\x02h\x07.", id="memo that was never filled"),
        pytest.param(b"\x80\x02]" + b"]a" * 100_000 + b".", id="list of many lists"),
        pytest.param(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", id="deep nesting"),
        pytest.param(
            b"\x80\x02" + b"}X\x01\0\0\0a" * 90_000 + b"}" + b"s" * 90_000 + b".", id="deep dicts"
        ),
    ],
)
def test_hostile_pickle_costs_little_and_says_nothing(tmp_path: Path, data: bytes) -> None:
    """Time and memory stay bounded, no exception escapes, nothing is made up."""
    path = state(tmp_path / "training_state.pt", data)
    start = time.thread_time()
    assert training_facts(path) == UNKNOWN
    assert time.thread_time() - start < 10.0  # about one on an idle machine
    tracemalloc.start()
    training_facts(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * len(data) + 150 * MAX_OPCODES


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    """Whatever follows the header, the answer is facts and not an exception."""
    path = Path(tempfile.gettempdir()) / f"nptwatch-fuzz-{os.getpid()}.pt"
    try:
        facts = training_facts(state(path, b"\x80\x02}X\x0b\x00\x00\x00global_step" + data))
    finally:
        path.unlink()
    assert facts.global_step is None or facts.global_step >= 0


@pytest.mark.parametrize("value", [True, -1, 2.5, "7", None, [1]])
def test_step_that_is_none_is_not_made_up(tmp_path: Path, value: object) -> None:
    """Only a non-negative integer is a step; only a non-empty text is a name."""
    data = pickle.dumps({"global_step": value, "config": {"model_name": 3}})
    assert training_facts(state(tmp_path / "training_state.pt", data)) == UNKNOWN


def test_broken_or_absent_state_says_nothing(tmp_path: Path) -> None:
    """A training state is never a reason to fail."""
    path = tmp_path / "training_state.pt"
    assert training_facts(path) == UNKNOWN
    path.write_bytes(WEIGHTS.read_bytes()[:5000])
    assert training_facts(path) == UNKNOWN
    zipped(path, {"t/data.pkl": pickle.dumps({"global_step": 1})}, compress=True)
    assert training_facts(path) == UNKNOWN


# -- step and base -----------------------------------------------------------------------------


def test_step_comes_from_the_folder_first(tmp_path: Path) -> None:
    """checkpoint-<n> wins over the training state; elsewhere that is asked; else unknown."""
    for name, step in [("checkpoint-12", 12), ("best", 300), ("checkpoint-x", 300)]:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(WEIGHTS.with_name("training_state.pt"), folder)
        assert step_of(folder / "npt_weights.pt") == step
    assert step_of(tmp_path / "npt_weights.pt") is None


def test_base_model_sources_in_order(tmp_path: Path) -> None:
    """config.json beside the weights, else the run's, else the training state, else nobody."""
    folder = tmp_path / "checkpoints/checkpoint-1"
    folder.mkdir(parents=True)
    weights = folder / "npt_weights.pt"
    assert base_model_of(weights, tmp_path) is None
    shutil.copy(WEIGHTS.with_name("training_state.pt"), folder)
    assert base_model_of(weights, tmp_path) == "base"
    (tmp_path / "config.json").write_text('{"model_name": "of-run"}')
    assert base_model_of(weights, tmp_path) == "of-run"
    (folder / "config.json").write_text('{"model_name": ')  # being written
    assert base_model_of(weights, tmp_path) == "of-run"
    (folder / "config.json").write_text('{"model_name": "of-step"}')
    assert base_model_of(weights, tmp_path) == "of-step"
    (folder / "config.json").write_text("[" * 100_000)
    assert base_model_of(weights, tmp_path) == "of-run"


def test_torch_is_not_imported() -> None:
    """The watcher's side of npt/ stays small."""
    code = "import nptwatch.npt.files, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_real_torch_save_with_and_without_crcs(tmp_path: Path) -> None:
    """What torch writes today is whole; without CRCs two contents still differ."""
    torch = pytest.importorskip("torch")
    prints = []
    for number, crcs in ((1.0, True), (1.0, False), (2.0, False)):
        buffer = io.BytesIO()
        torch.serialization.set_crc32_options(crcs)
        try:
            torch.save({"a": torch.full((4,), number)}, buffer)
        finally:
            torch.serialization.set_crc32_options(True)
        path = tmp_path / "npt_weights.pt"
        path.write_bytes(buffer.getvalue())
        check_crc(path)
        prints.append(fingerprint(path))
    assert [p.split(":")[0] for p in prints] == ["zip", "sha256", "sha256"]
    assert len(set(prints)) == 3
