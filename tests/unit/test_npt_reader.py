"""A checkpoint is hostile until proved otherwise: what is refused, and with which words."""

from __future__ import annotations

import io
import os
import pickle
import resource
import subprocess
import sys
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest
import tiny
import torch
from safetensors.torch import save_file

from nptwatch.errors import (
    CheckpointChangedError,
    CheckpointDeletedError,
    IncompleteCheckpointError,
    LayoutError,
    UnsafeCheckpointError,
)
from nptwatch.npt.layout import infer_layout
from nptwatch.npt.reader import read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 2**20
GOOD = tiny.weights(tiny.layer(1), tiny.layer(2, num_ranks=2))


def read(path: Path) -> dict[str, torch.Tensor]:
    """Read with a cap of one MiB."""
    return read_checkpoint(path, max_bytes=MEBIBYTE).tensors


def test_a_sound_file_is_read_whole(tmp_path: Path) -> None:
    """Tensors come back bit by bit, in the file's own dtypes, from .pt and .safetensors."""
    mixed = {name: t.to(torch.bfloat16) if "gate" in name else t for name, t in GOOD.items()}
    save_file(mixed, tmp_path / "npt_weights.safetensors")
    for path in (
        tiny.save(tmp_path / "npt_weights.pt", mixed),
        tmp_path / "npt_weights.safetensors",
    ):
        checkpoint = read_checkpoint(path, max_bytes=MEBIBYTE)
        assert checkpoint.dtypes == ["bfloat16", "float32"]
        assert checkpoint.first_non_finite() is None
        assert set(checkpoint.tensors) == set(mixed)
        for name, tensor in mixed.items():
            assert torch.equal(checkpoint.tensors[name], tensor)


class Evil:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        """Leave `marker` behind if the code runs."""
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Ask the unpickler to call os.system."""
        return os.system, (f"touch {self.marker}",)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    """In a ZIP or bare, code in a pickle never runs; the message says what it asked for."""
    marker = tmp_path / "ran"
    zipped = tiny.save(tmp_path / "npt_weights.pt", {**GOOD, "x": Evil(marker)})
    with pytest.raises(UnsafeCheckpointError, match="system"):
        read(zipped)
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(IncompleteCheckpointError, match="legacy pickle"):
        read(bare)
    assert not marker.exists()


def test_a_legacy_file_is_refused(tmp_path: Path) -> None:
    """torch.save's old format is a bare pickle: refused unread."""
    path = tmp_path / "npt_weights.pt"
    torch.save(GOOD, path, _use_new_zipfile_serialization=False)
    with pytest.raises(IncompleteCheckpointError, match="legacy pickle"):
        read(path)


def test_a_dict_with_other_things_names_them(tmp_path: Path) -> None:
    """Numbers, nested dicts and lists beside tensors are refused by name and type."""
    path = tiny.save(tmp_path / "npt_weights.pt", {**GOOD, "step": 3, "optimizer": {"lr": 0.1}})
    with pytest.raises(UnsafeCheckpointError, match=r"'step' \(int\), 'optimizer' \(dict\)"):
        read(path)
    listed = tiny.save(tmp_path / "list.pt", [1, 2])
    with pytest.raises(UnsafeCheckpointError, match="expected a dict of tensors, found a list"):
        read(listed)


def test_an_optimizer_state_says_what_was_found(tmp_path: Path) -> None:
    """Tensors, but no NPT's: the guide's message and what is there instead."""
    state = {"exp_avg.0": torch.zeros(3), "exp_avg_sq.0": torch.zeros(3)}
    path = tiny.save(tmp_path / "npt_weights.pt", state)
    with pytest.raises(LayoutError, match=r"No NPT layers found in checkpoint.*optimizer state"):
        infer_layout(read_checkpoint(path, max_bytes=MEBIBYTE).shapes)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_file_is_incomplete(tmp_path: Path, keep: float) -> None:
    """However it was cut, it is told as incomplete, and nothing else is raised."""
    for path in (
        tiny.save(tmp_path / "npt_weights.pt", GOOD),
        tmp_path / "npt_weights.safetensors",
    ):
        if path.suffix == ".safetensors":
            save_file(GOOD, path)
        size = path.stat().st_size
        length = int(size * keep) if isinstance(keep, float) else keep % size
        os.truncate(path, length)
        with pytest.raises(IncompleteCheckpointError):
            read(path)


def test_every_flipped_bit_in_tensor_data_is_found(tmp_path: Path) -> None:
    """One wrong bit anywhere in a member: the CRC says so (torch alone would load it)."""
    path = tiny.save(tmp_path / "npt_weights.pt", GOOD)
    sound = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        places = [
            (m.header_offset + 30 + len(m.filename) + 64 + m.file_size // 2)
            for m in archive.infolist()
            if "/data/" in m.filename and m.file_size > 256
        ]
    assert places
    for place in places:
        damaged = bytearray(sound)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(IncompleteCheckpointError, match="damaged"):
            read(path)


def test_garbage_and_other_archives_are_told_apart(tmp_path: Path) -> None:
    """Random bytes are incomplete; an ordinary ZIP is refused for what it is."""
    path = tmp_path / "npt_weights.pt"
    path.write_bytes(os.urandom(5000))
    with pytest.raises(IncompleteCheckpointError):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday/photo.jpg", b"x" * 100)
    with pytest.raises(UnsafeCheckpointError, match=r"not one that torch\.save wrote"):
        read(path)


def repacked(path: Path, **kwargs: int) -> Path:
    """Write the archive again with other ZIP options."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", **kwargs) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_a_deflate_bomb_is_refused_before_it_inflates(tmp_path: Path) -> None:
    """A compressed member that would be a GiB allocates next to nothing."""
    path = tiny.save(tmp_path / "npt_weights.pt", {"layer_1_np.W_down": torch.zeros(2**22)})
    repacked(path, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < MEBIBYTE / 10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnsafeCheckpointError, match="compressed"):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024  # KiB


def test_a_view_of_a_trillion_elements_is_refused(tmp_path: Path) -> None:
    """Stride 0 over four bytes: the claim is compared with the storage before any copy."""
    vast = torch.zeros(1).expand(1_000_000, 1_000_000)
    path = tiny.save(tmp_path / "npt_weights.pt", {"layer_1_np.W_down": vast})
    assert path.stat().st_size < 10_000
    with pytest.raises(UnsafeCheckpointError, match="claims 1,000,000,000,000 elements"):
        read(path)


def test_tensors_without_plain_data_are_refused(tmp_path: Path) -> None:
    """Sparse, meta, integer and complex tensors are no weights."""
    name = "layer_1_np.W_down"
    for number, (tensor, words) in enumerate(
        [
            (torch.eye(3).to_sparse(), "not a dense tensor"),
            (torch.zeros(3, 3, device="meta"), "no data"),
            (torch.zeros(3, 3, dtype=torch.int32), "not a float"),
            (torch.zeros(3, 3, dtype=torch.complex64), "not a float"),
        ]
    ):
        path = tiny.save(tmp_path / f"{number}" / "npt_weights.pt", {name: tensor})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch on sparse invariants
            with pytest.raises(UnsafeCheckpointError, match=words):
                read(path)


def test_a_declared_size_beyond_the_record_is_refused(tmp_path: Path) -> None:
    """A pickle that declares more elements than its record holds never allocates them."""
    path = tiny.save(tmp_path / "npt_weights.pt", {"layer_1_np.W_down": torch.zeros(4, 4)})
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            if name.endswith("data.pkl"):
                assert content.count(b"K\x10") == 1  # numel 16 of the storage
                content = content.replace(b"K\x10", b"J\x00\x00\x00\x40")  # noqa: PLW2901 - 2**30
            archive.writestr(name, content)
    with pytest.raises((IncompleteCheckpointError, UnsafeCheckpointError)):
        read(path)


def test_too_large_a_file_is_refused_unread(tmp_path: Path) -> None:
    """The cap comes before anything else."""
    path = tmp_path / "npt_weights.pt"
    with path.open("wb") as file:
        file.truncate(MEBIBYTE + 1)  # sparse: not even ZIP
    with pytest.raises(UnsafeCheckpointError, match="more than the cap"):
        read(path)


def test_a_missing_file_is_deleted(tmp_path: Path) -> None:
    """Gone is not an error of the checkpoint."""
    with pytest.raises(CheckpointDeletedError):
        read(tmp_path / "npt_weights.pt")


def test_a_file_rewritten_while_it_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer that overwrites the file during the load: no mixed reading comes out."""
    path = tiny.save(tmp_path / "npt_weights.pt", GOOD)
    load = torch.load

    def load_and_overwrite(*args: object, **kwargs: object) -> object:
        loaded = load(*args, **kwargs)
        tiny.save(path, {name: tensor + 1 for name, tensor in GOOD.items()})
        return loaded

    monkeypatch.setattr(torch, "load", load_and_overwrite)
    with pytest.raises(CheckpointChangedError, match="rewritten"):
        read(path)


def test_an_outsize_pickle_is_refused(tmp_path: Path) -> None:
    """A weights file's pickle is names and shapes; one of 17 MiB is something else."""
    path = tmp_path / "npt_weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("npt_weights/data.pkl", b"\0" * (17 * MEBIBYTE))
    with pytest.raises(UnsafeCheckpointError, match="bytes of pickle"):
        read_checkpoint(path, max_bytes=64 * MEBIBYTE)


def test_no_file_is_mapped_while_it_is_rewritten(tmp_path: Path) -> None:
    """A trainer that truncates the file after loading does not kill the reader (SIGBUS)."""
    path = tiny.save(tmp_path / "npt_weights.pt", {"layer_1_np.W_down": torch.ones(256, 256)})
    code = (
        "import sys, os; from pathlib import Path\n"
        "from nptwatch.npt.reader import read_checkpoint\n"
        "t = read_checkpoint(Path(sys.argv[1]), max_bytes=2**20).tensors\n"
        "os.truncate(sys.argv[1], 10)\n"
        "print(t['layer_1_np.W_down'].sum().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "65536.0"


def test_pickles_from_memory_and_disk_agree() -> None:
    """The helper that the tests above rely on writes what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(GOOD, buffer)
    buffer.seek(0)
    assert set(torch.load(buffer, weights_only=True)) == set(GOOD)
