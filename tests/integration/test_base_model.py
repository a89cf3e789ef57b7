"""A base that cannot be used is a clear error; what is loaded is told apart by content."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from nptwatch.errors import BaseModelError, DeviceError, OutOfMemoryError
from nptwatch.npt.base import files_stamp, load_base
from nptwatch.npt.devices import resolve_device
from nptwatch.npt.memory import device_errors

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small base on disk."""
    return tiny.llama(tmp_path / "base", layers=2)


def test_a_missing_folder_is_not_asked_of_the_hub(tmp_path: Path) -> None:
    """A path that is not there says so, with the setting that names it."""
    with pytest.raises(BaseModelError, match=r"no such folder.*base\.model"):
        load_base(str(tmp_path / "nowhere"))


def test_a_hub_name_that_is_not_here_says_so() -> None:
    """Local files only: neither folder nor cached model."""
    with pytest.raises(BaseModelError, match="not on this machine"):
        load_base("nobody/no-such-llama", local_files_only=True)


def test_missing_weights_are_never_filled_with_random_numbers(folder: Path) -> None:
    """The library would initialise them and go on; we name the first one."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"layers\.1\.mlp\.up_proj"):
        load_base(str(folder))


def test_damaged_weights_or_config_are_a_base_model_error(folder: Path) -> None:
    """Half a file, broken JSON: exit code 4, not a traceback."""
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{half")
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_base(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(BaseModelError) as caught:
        load_base(str(folder))
    assert caught.value.exit_code == 4


def test_dtype_is_what_was_asked_for(folder: Path) -> None:
    """float32 and bfloat16 bases, whatever the file holds."""
    assert load_base(str(folder)).dtype == torch.float32
    assert load_base(str(folder), dtype="bfloat16").dtype == torch.bfloat16


def test_tied_embeddings_are_complete(tmp_path: Path) -> None:
    """A tied head has no weight of its own in the file, and that is no fault."""
    base = load_base(str(tiny.llama(tmp_path / "tied", layers=1, tie_word_embeddings=True)))
    assert base.shape.num_layers == 1


def test_revision_is_content(folder: Path, tmp_path: Path) -> None:
    """A copy is the same base; one changed weight or another tokenizer is another."""
    original = load_base(str(folder)).revision
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert load_base(str(copy)).revision == original
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-3
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    changed = load_base(str(copy)).revision
    assert changed != original
    tokenizer = (copy / "tokenizer_config.json").read_text()
    (copy / "tokenizer_config.json").write_text(tokenizer + " ")
    assert load_base(str(copy)).revision not in {changed, original}


def test_devices_that_do_not_exist_are_refused() -> None:
    """The message says what may be asked for."""
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match="auto, cpu, cuda"):
        resolve_device("quantum")
    with pytest.raises(DeviceError, match="not supported"):
        resolve_device("meta")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="0 CUDA devices"):
            resolve_device("cuda:0")


def test_a_base_written_again_has_another_stamp(folder: Path) -> None:
    """Cheap to ask before every job: the same while nothing changes, another after a rewrite."""
    before = files_stamp(str(folder))
    assert files_stamp(str(folder)) == before
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert files_stamp(str(folder)) != before
    assert files_stamp("meta-llama/Llama-3.2-1B") == ""


def test_running_out_of_memory_while_loading_is_not_the_base_s_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as lack of memory (retried later), not as a base that cannot be loaded."""
    from transformers import AutoModelForCausalLM

    def exhausted(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"
        )

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", exhausted)
    with (
        pytest.raises(OutOfMemoryError, match="out of memory on cpu"),
        device_errors(torch.device("cpu")),
    ):
        load_base(str(folder))
