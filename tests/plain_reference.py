"""The oracle: one variant at a time, whole Hugging Face forward passes, formulas as in docs/npt.md.

Slow and literal on purpose; shares no code with nptwatch. Also the benchmark's baseline.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


class PlainNptLayer(nn.Module):
    """A decoder layer that computes the NPT path, component by component."""

    def __init__(self, inner: Any, weights: Mapping[str, Tensor], *, drop: bool) -> None:
        """Wrap a transformers decoder layer; `weights` by the names after the prefix."""
        super().__init__()
        self.inner, self.weights, self.drop = inner, weights, drop

    def _delta(self, projection: str, x: Tensor, attn: Tensor) -> Tensor | int:
        kind = "" if "W_down" in self.weights or "W_down.0" in self.weights else f"_{projection}"
        if kind == "" and projection != "gate":
            return 0
        total: Tensor | int = 0
        for number in ["", *(f".{k}" for k in range(100))]:
            down = self.weights.get(f"W_down{kind}{number}")
            if down is None:
                if number == "":
                    continue
                break
            z = attn @ down
            va = z @ self.weights[f"W_a_up{kind}{number}"]
            vb = z @ self.weights[f"W_b_up{kind}{number}"]
            total = total + vb * (va * x).sum(-1, keepdim=True)
        return total

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Run the layer as transformers calls it."""
        h = hidden_states
        attn = self.inner.self_attn(hidden_states=self.inner.input_layernorm(h), **kwargs)[0]
        x = self.inner.post_attention_layernorm(h)
        mlp = self.inner.mlp
        gate = mlp.gate_proj(x) + self._delta("gate", x, attn)
        up = mlp.up_proj(x) + self._delta("up", x, attn)
        s = functional.silu(gate) * up
        m = mlp.down_proj(s) + self._delta("down", s, attn)
        return h + m if self.drop else h + attn + m


@contextmanager
def active(
    model: Any, tensors: Mapping[str, Tensor], layers: Iterable[int], *, drop: bool
) -> Iterator[Any]:
    """Give a model whose named layers take the NPT path."""
    inner = list(model.model.layers)
    try:
        for index in layers:
            pattern = re.compile(
                rf"(?:layer_{index}_np|model\.layers\.{index}\.np_component)\.(.+)"
            )
            weights = {
                found[1]: tensor.float()
                for name, tensor in tensors.items()
                if (found := pattern.fullmatch(name))
            }
            model.model.layers[index] = PlainNptLayer(inner[index], weights, drop=drop)
        yield model
    finally:
        for index, layer in enumerate(inner):
            model.model.layers[index] = layer


@torch.inference_mode()
def logits(model: Any, ids: list[int]) -> Tensor:
    """Logits of one prompt, (T,V)."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def scores(npt_TV: Tensor, base_TV: Tensor, ids_T: Tensor) -> dict[str, float]:
    """The measures of docs/diagnostics.md as torch's own functions give them, in float64."""
    npt, base = npt_TV.double(), base_TV.double()
    kl_T = functional.kl_div(npt.log_softmax(-1), base.softmax(-1), reduction="none").sum(-1)
    mse = functional.mse_loss(npt, base)
    nll = functional.cross_entropy(npt[:-1], ids_T[1:])
    base_nll = functional.cross_entropy(base[:-1], ids_T[1:])
    return {
        "mse": mse.item(),
        "cosine": functional.cosine_similarity(npt.flatten(), base.flatten(), dim=0).item(),
        "kl": kl_T.mean().item(),
        "kl_last": kl_T[-1].item(),
        "top1_agreement": (npt.argmax(-1) == base.argmax(-1)).double().mean().item(),
        "relative_mse": (mse / base.var(correction=0)).item(),
        "perplexity_ratio": (nll.exp() / base_nll.exp()).item(),
    }


def quick(model_folder: Path, weights: Path, prompts: Iterable[str], *, drop: bool) -> list[float]:
    """Do what the guide's quick script does: load both models, one prompt at a time; MSEs."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    other = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    tensors = torch.load(weights, weights_only=True)
    layers = {int(n) for name in tensors for n in re.findall(r"layer_(\d+)_np", name)}
    scores = []
    with active(other, tensors, layers, drop=drop) as npt:
        for prompt in prompts:
            ids = tokenizer(prompt)["input_ids"]
            theirs, ours = logits(base, ids), logits(npt, ids)
            scores.append(functional.mse_loss(ours, theirs).item())
            functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0).item()
    return scores
