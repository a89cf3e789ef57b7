"""A base that cannot be streamed is told in words; free memory decides where nobody did."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from nptwatch.errors import BaseModelError
from nptwatch.npt.memory import free_bytes, free_host_bytes
from nptwatch.npt.opening import Opened, open_base

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
GIB = 1024**3


def open_as(folder: Path, layers: str) -> Opened:
    """Open a base for the CPU in float32."""
    return open_base(str(folder), layers=layers, dtype="float32", device=CPU, local_files_only=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base of four layers."""
    return tiny.llama(tmp_path / "base")


def rewrite(folder: Path) -> None:
    """Write the same weights again, in place."""
    file = folder / "model.safetensors"
    written = file.stat().st_mtime_ns
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(written, written + 1_000_000))


def cut(folder: Path) -> None:
    """Take the last half away."""
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def remove(folder: Path) -> None:
    """Delete the weights."""
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rewrite, "ends too early|was written again"),
        (cut, "ends too early|was written again"),
        (remove, "cannot be read|is gone"),
    ],
)
def test_files_that_change_end_the_walk(folder: Path, change: object, told: str) -> None:
    """Before it or in its midst: no number is of two bases, and the error names the file."""
    base = open_as(folder, "streamed").base
    walk = base.each_layer()
    next(walk)
    assert callable(change)
    change(folder)
    with pytest.raises(BaseModelError, match=rf"model\.safetensors.*({told})"):
        list(walk)
    with pytest.raises(BaseModelError, match=told):
        next(base.each_layer())
    with pytest.raises(BaseModelError, match=told):
        base.head(torch.zeros(2, 32))
    with pytest.raises(BaseModelError, match=told):
        base.embed(torch.tensor([[257]]))


def test_a_file_that_is_not_whole_is_not_opened(folder: Path) -> None:
    """Truncated, garbage, empty, or with a header that lies: told when it is opened."""
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    lying = whole.replace(b'"F32"', b'"F16"')
    for damaged in (whole[:-1], whole[: len(whole) // 3], b"", b"\x10\0\0\0\0\0\0\0{half", lying):
        file.write_bytes(damaged)
        with pytest.raises(BaseModelError, match="not a whole safetensors file"):
            open_as(folder, "streamed")


def test_a_weight_that_is_missing_or_of_another_shape_is_named(folder: Path) -> None:
    """As for a resident base, before anything is measured."""
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    for fault in (None, tensors[name][1:].clone()):
        del tensors[name]
        if fault is not None:
            tensors[name] = fault
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(BaseModelError, match=r"incomplete: 1 .*layers\.1\.mlp\.up_proj"):
            open_as(folder, "streamed")
        tensors[name] = torch.zeros(1)


def test_integers_are_no_weights(folder: Path) -> None:
    """A quantised base is refused by the tensor that shows it."""
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"model\.norm\.weight.* is I8"):
        open_as(folder, "streamed")


def test_without_safetensors_a_base_can_only_be_resident(folder: Path) -> None:
    """Asked for, that is an error with the way out; else it is the reason."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    remove(folder)
    with pytest.raises(BaseModelError, match=r"no model\.safetensors.*base\.layers"):
        open_as(folder, "streamed")
    found = open_as(folder, "auto")
    assert found.layers == "resident"
    assert found.why == "it has no safetensors files that could be streamed"


@pytest.mark.parametrize(
    ("family", "more", "told"),
    [
        ("gemma2", {}, "pre_feedforward_layernorm"),
        ("granite", {"residual_multiplier": 0.5}, "differ by"),
        ("granite", {"embedding_multiplier": 3.0}, "differ by"),
        ("granite", {"logits_scaling": 3.0}, "differ by"),
    ],
)
def test_other_decoders_are_refused_unread(
    family: str, more: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """A small model of the same config tells what the whole one would compute."""
    folder = tiny.llama(tmp_path / "base", family=family, **more)
    with pytest.raises(BaseModelError, match=f"'{family}'.*{told}"):
        open_as(folder, "streamed")


def test_auto_streams_what_does_not_fit(folder: Path) -> None:
    """By the size of the files and the free memory, whatever the machine has."""
    file = folder / "model.safetensors"
    found = open_as(folder, "auto")
    assert found.layers == "resident"
    assert "which are free" in found.why
    before = free_bytes(CPU)
    assert before is not None
    swell(file, 4 * before)
    found = open_as(folder, "auto")
    assert found.layers == "streamed"
    assert "and cpu has" in found.why
    assert [index for index, _ in found.base.each_layer()] == [0, 1, 2, 3]


def swell(file: Path, more_bytes: int) -> None:
    """Add a weight that nobody uses, of a size that no disk holds: the file is sparse."""
    import json

    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    data = content[8 + size :]
    elements = more_bytes // 4
    header["unused"] = {
        "dtype": "F32",
        "shape": [elements],
        "data_offsets": [len(data), len(data) + 4 * elements],
    }
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    os.truncate(file, 8 + len(text) + len(data) + 4 * elements)


def test_free_memory_is_what_the_machine_and_all_limits_leave(tmp_path: Path) -> None:
    """Limits of both cgroup versions, on the way up; cached files make room; no limit is no limit."""
    assert free_host_bytes(tmp_path) is None
    write(tmp_path / "proc/meminfo", f"MemTotal: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    assert free_host_bytes(tmp_path) == 8 * GIB
    write(tmp_path / "proc/self/cgroup", "0::/slice/job\n")
    limit(tmp_path / "sys/fs/cgroup/slice/job", "max", GIB)
    assert free_host_bytes(tmp_path) == 8 * GIB
    limit(tmp_path / "sys/fs/cgroup/slice", str(6 * GIB), 4 * GIB, cached=GIB)
    assert free_host_bytes(tmp_path) == 3 * GIB
    write(tmp_path / "proc/self/cgroup", "4:memory:/not/visible/here\n1:cpu:/\n")
    v1 = tmp_path / "sys/fs/cgroup/memory"
    write(v1 / "memory.limit_in_bytes", f"{5 * GIB}\n")
    write(v1 / "memory.usage_in_bytes", f"{3 * GIB}\n")
    write(v1 / "memory.stat", f"inactive_file 0\ntotal_inactive_file {GIB // 2}\n")
    assert free_host_bytes(tmp_path) == 2 * GIB + GIB // 2


def limit(level: Path, most: str, used: int, cached: int = 0) -> None:
    """Write a cgroup as version 2 shows it."""
    write(level / "memory.max", f"{most}\n")
    write(level / "memory.current", f"{used}\n")
    write(level / "memory.stat", f"anon 1\ninactive_file {cached}\n")


def write(path: Path, text: str) -> None:
    """Write a file, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


GROWTH = """
import sys, torch
from nptwatch.npt.opening import open_base
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
def walk(folder, layers):
    base = open_base(folder, layers=layers, dtype="float32", device=torch.device("cpu"),
                     local_files_only=True).base
    seen = sum(all(weight.sum().isfinite() for weight in layer.parameters())
               for _, layer in base.each_layer())
    base.head(base.norm(base.embed(torch.tensor([[1, 2, 3]]))))
    return seen
walk(sys.argv[1], sys.argv[3])
before = peak()
print(walk(sys.argv[2], sys.argv[3]), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_layers(tmp_path: Path) -> None:
    """A process that streamed two layers needs no more for thirty."""
    small, deep = (
        tiny.llama(tmp_path / str(layers), hidden=320, layers=layers) for layers in (2, 30)
    )
    layer_bytes = (deep / "model.safetensors").stat().st_size // 30
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, small, deep, "streamed"],
        check=True,
        capture_output=True,
        text=True,
    )
    layers, growth = map(int, done.stdout.split())
    assert layers == 30
    assert growth < 6 * layer_bytes
