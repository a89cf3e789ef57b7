"""A base read straight from its files is the one that transformers loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from nptwatch.errors import BaseModelError
from nptwatch.npt.base import load_base
from nptwatch.npt.filling import load_filled
from nptwatch.npt.finding import find_base
from nptwatch.npt.opening import open_base
from nptwatch.npt.weight_files import WeightFiles

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "base"
CPU = torch.device("cpu")


def folder_of(kind: str, folder: Path) -> Path:
    """A base of some make."""
    more: dict[str, dict[str, object]] = {
        "tied": {"tie_word_embeddings": True},
        "biased": {"attention_bias": True, "head_dim": 16},
        "qwen3": {"family": "qwen3"},
        "mistral": {"family": "mistral", "sliding_window": None},
    }
    return GOLDEN if kind == "golden" else tiny.llama(folder, **more[kind])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["golden", "tied", "biased", "qwen3", "mistral"])
def test_every_weight_and_logit_is_the_same(kind: str, dtype: str, tmp_path: Path) -> None:
    """Bit by bit, with the same revision, dtype, device and end tokens."""
    folder = str(folder_of(kind, tmp_path))
    found = find_base(folder, local_files_only=True)
    ours = load_filled(found, WeightFiles(folder, found.weight_files()), dtype, CPU)
    theirs = load_base(folder, dtype=dtype, local_files_only=True)
    weights = dict(theirs.model.named_parameters())
    assert {name for name, _ in ours.model.named_parameters()} == set(weights)
    for name, weight in ours.model.named_parameters():
        assert (weight.dtype, weight.requires_grad) == (weights[name].dtype, False)
        assert torch.equal(weight, weights[name])
    assert ours.model.generation_config.eos_token_id == theirs.model.generation_config.eos_token_id
    ids_BT = torch.tensor([[0, 5, 9, 17]])
    with torch.inference_mode():
        assert torch.equal(ours.model(ids_BT).logits, theirs.model(ids_BT).logits)
    assert (ours.revision, ours.shape) == (theirs.revision, theirs.shape)
    tied = ours.model.lm_head.weight is ours.model.model.embed_tokens.weight
    assert tied == (kind == "tied")


def test_what_cannot_be_read_so_is_told_by_the_library_s_way(tmp_path: Path) -> None:
    """A missing weight is named, never filled with random numbers."""
    folder = tiny.llama(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"layers\.1\.mlp\.up_proj"):
        open_base(
            str(folder), layers="resident", dtype="float32", device=CPU, local_files_only=True
        )
