"""Other decoders than Llama: those that are built like it measure right, all others are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tiny
import torch
from plain_reference import active, logits
from plain_reference import scores as plain_scores

from nptwatch.diagnostics.probes import QUICK_PROMPTS, tokenize
from nptwatch.diagnostics.reference import compute_reference
from nptwatch.diagnostics.sweep import Variant, sweep
from nptwatch.errors import BaseModelError, ConfigError
from nptwatch.npt.base import load_base
from nptwatch.npt.layout import Kind, infer_layout
from nptwatch.npt.modulation import npt_layers

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = (tiny.layer(1, Kind.TRIPLE, num_ranks=2), tiny.layer(3))


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 64}),
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"head_dim": 16}),
    ],
    ids=["mistral", "mistral-window", "qwen2", "qwen2-tied", "qwen3"],
)
def test_every_variant_equals_the_plain_reference(
    family: str, more: dict[str, object], tmp_path: Path
) -> None:
    """Whole forward passes of the library, one variant at a time, give the same numbers."""
    base = load_base(str(tiny.llama(tmp_path, family=family, **more)), local_files_only=True)
    assert base.model.config.model_type == family
    tensors = tiny.weights(*LAYERS)
    layout = infer_layout({n: tuple(t.shape) for n, t in tensors.items()}, base.shape)
    npt = npt_layers(layout, tensors, dtype=base.dtype, device=base.device)
    variants = [
        Variant(active=frozenset(layers), drop=drop)
        for layers in ({1}, {3}, {1, 3})
        for drop in (False, True)
    ]
    probes = tokenize(base, QUICK_PROMPTS)
    swept = sweep(base, npt, probes, compute_reference(base, probes), variants)
    for variant, outcome in zip(variants, swept.outcomes, strict=True):
        for prompt, score in zip(QUICK_PROMPTS, outcome.scores, strict=True):
            ids = base.tokenizer(prompt)["input_ids"]
            base_TV = logits(base.model, ids)
            with active(base.model, tensors, variant.active, drop=variant.drop) as model:
                wanted = plain_scores(logits(model, ids), base_TV, torch.tensor(ids))
            for name, number in wanted.items():
                assert getattr(score, name) == pytest.approx(number, rel=1e-4, abs=2e-6), name


def test_a_text_longer_than_the_window_is_refused(tmp_path: Path) -> None:
    """Attention within segments has no window: better no number than a wrong one."""
    base = load_base(str(tiny.llama(tmp_path, family="mistral", sliding_window=8)))
    with pytest.raises(ConfigError, match="the most is 8"):
        tokenize(base, ["The quick brown fox jumps over the lazy dog."])


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ("gemma2", "pre_feedforward_layernorm"),
        ("olmo2", "post_feedforward_layernorm"),
        ("gpt2", "has no"),
        ("granite", "differ by"),  # the same parts, and a multiplier that is none of them
    ],
)
def test_other_decoders_are_refused(family: str, told: str, tmp_path: Path) -> None:
    """The message says what the model is and what is different about it."""
    more = {"residual_multiplier": 0.5} if family == "granite" else {}
    folder = tiny.llama(tmp_path, family=family, **more)
    with pytest.raises(BaseModelError, match=f"'{family}'.*{told}"):
        load_base(str(folder), local_files_only=True)
