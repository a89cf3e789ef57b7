"""Verified drafts give exactly the tokens of step by step decoding, in fewer sweeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from nptwatch.diagnostics.drafting import generate_from_drafts
from nptwatch.diagnostics.full import DRAWS
from nptwatch.diagnostics.generation import Continuations, Draw, generate
from nptwatch.diagnostics.reference import References
from nptwatch.npt.base import BaseModel, load_base
from nptwatch.npt.layout import infer_layout
from nptwatch.npt.modulation import Component, Modulation, NptLayer, npt_layers
from nptwatch.npt.reader import read_checkpoint

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CASES = sorted(path.name for path in (GOLDEN / "cases").iterdir())


@pytest.fixture(scope="module")
def base() -> BaseModel:
    """The golden base."""
    return load_base(str(GOLDEN / "base"), local_files_only=True)


def layers_of(path: Path, base: BaseModel) -> dict[int, NptLayer]:
    """A checkpoint's layers."""
    checkpoint = read_checkpoint(path, max_bytes=2**24)
    layout = infer_layout(checkpoint.shapes, base.shape)
    return npt_layers(layout, checkpoint.tensors, dtype=base.dtype, device=base.device)


def golden(case: str, base: BaseModel) -> tuple[dict[int, NptLayer], dict[str, Any]]:
    """A golden checkpoint's layers and what was measured of it."""
    folder = GOLDEN / "cases" / case
    (path,) = folder.glob("checkpoints/*/npt_weights.pt")
    return layers_of(path, base), json.loads((folder / "expected.json").read_text())


def without_weights(layer: NptLayer) -> NptLayer:
    """The same layer with nothing but zeros."""
    parts = {name: getattr(layer, name) for name in ("gate", "up", "down")}
    return replace(
        layer,
        **{
            name: Modulation(
                components=tuple(
                    Component(down_DR=each.down_DR * 0, a_RX=each.a_RX * 0, b_RY=each.b_RY * 0)
                    for each in part.components
                )
            )
            for name, part in parts.items()
            if part is not None
        },
    )


class Counted(torch.nn.Module):
    """Stands around a layer and counts its calls."""

    def __init__(self, inner: torch.nn.Module) -> None:
        """Wrap an attention, which every pass through a layer calls once."""
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, **kwargs: Any) -> Any:
        """Count and call."""
        self.calls += 1
        return self.inner(**kwargs)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_decoding_alone(case: str, seed: int, base: BaseModel) -> None:
    """Greedy and sampled, each draw decoded alone and step by step: equal, token by token."""
    npt, _ = golden(case, base)
    drop = case.endswith("drop")
    drafts = Continuations(base=base, folder=None, seed=seed)
    found = generate_from_drafts(References(base=base), npt, DRAWS, drafts, drop=drop)
    alone = [
        generate(base, npt, [draw], drop=drop, seed=seed, use_cache=False)[0] for draw in DRAWS
    ]
    assert found == alone


@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens_are_the_originals(case: str, base: BaseModel) -> None:
    """The recorded tokens, through a draft."""
    npt, expected = golden(case, base)
    draws = [Draw(prompt=prompt, temperature=0.0) for prompt in expected["greedy"]]
    drafts = Continuations(base=base, folder=None, seed=0)
    found = generate_from_drafts(
        References(base=base), npt, draws, drafts, drop=case.endswith("drop")
    )
    for draw, tokens in zip(draws, found, strict=True):
        start = len(base.tokenizer(draw.prompt)["input_ids"])
        assert list(tokens) == expected["greedy"][draw.prompt]["npt"][start:]


def test_a_checkpoint_that_says_what_the_base_says_needs_one_sweep(tmp_path: Path) -> None:
    """Accepted drafts: the last layer runs once for all tokens, the layers below not at all."""
    folder = tiny.llama(tmp_path / "base")
    base = load_base(str(folder), local_files_only=True)
    for layer in base.layers:  # without attention an NPT of zeros computes what the base does
        layer.self_attn.o_proj.weight.data.zero_()
    tensors = {name: torch.zeros_like(t) for name, t in tiny.weights(tiny.layer(3)).items()}
    npt = layers_of(tiny.save(tmp_path / "npt_weights.pt", tensors), base)
    references = References(base=base)
    drafts = Continuations(base=base, folder=None, seed=0)
    assert generate_from_drafts(references, npt, DRAWS, drafts, drop=False) == drafts.of(DRAWS)
    counted = [Counted(layer.self_attn) for layer in base.layers]
    for layer, count in zip(base.layers, counted, strict=True):
        layer.self_attn = count
    assert generate_from_drafts(references, npt, DRAWS, drafts, drop=False) == drafts.of(DRAWS)
    assert [count.calls for count in counted] == [0, 0, 0, 1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_equal_models_say_the_same_in_every_precision(dtype: str) -> None:
    """Near ties too: an NPT that computes what the base does has the base's texts, all of them."""
    base = load_base(str(GOLDEN / "base"), local_files_only=True, dtype=dtype)
    npt, _ = golden(CASES[0], base)
    zeros = {index: without_weights(layer) for index, layer in npt.items()}
    for index in zeros:  # without attention there is nothing that an NPT layer leaves out
        base.layers[index].self_attn.o_proj.weight.data.zero_()
    for seed in range(4):
        drafts = Continuations(base=base, folder=None, seed=seed)
        found = generate_from_drafts(References(base=base), zeros, DRAWS, drafts, drop=False)
        assert found == drafts.of(DRAWS)


def test_settled_texts_of_float32_are_those_decoded(base: BaseModel) -> None:
    """Settling by a sweep changes no token that step by step decoding gives, greedy or sampled."""
    for seed in range(4):
        settled = Continuations(base=base, folder=None, seed=seed).of(DRAWS)
        assert settled == generate(base, {}, DRAWS, seed=seed)


def test_little_memory_for_logits_changes_no_token(base: BaseModel) -> None:
    """One draft at a time."""
    npt, _ = golden(CASES[0], base)
    drafts = Continuations(base=base, folder=None, seed=0)
    found = [
        generate_from_drafts(
            References(base=base, logits_bytes=size), npt, DRAWS, drafts, drop=True
        )
        for size in (1, 2**28)
    ]
    assert found[0] == found[1]
