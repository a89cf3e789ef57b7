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

QUICK = (
    "The capital of France is",
    "2 + 2 equals",
    "The largest planet in our solar system is",
)
BASIC = "Hello world"
STANDARD = (
    "The quick brown fox jumps over the lazy dog.",
    "In the beginning was the Word, and the Word was with God.",
    "To be or not to be, that is the question.",
)
PER_LAYER = "The capital of France is Paris, and it is known for"
PROGRESSIVE = "Machine learning is a subset of artificial intelligence"
GENERATION = ("The capital of France is", "In Python, a list is", "The quick brown fox")
TEMPERATURES = (0.1, 0.7, 1.0)
NEW_TOKENS = 20


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
        out: Tensor = h + m if self.drop else h + attn + m
        return out


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
    ids_1T = torch.tensor([ids], device=model.device)
    found: Tensor = model(input_ids=ids_1T, use_cache=False).logits[0].float()
    return found


@torch.inference_mode()
def continuation(model: Any, ids: list[int], *, temperature: float) -> list[int]:
    """New tokens of one prompt, drawn by transformers' own `generate`; 0: the most likely ones."""
    how = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    ids_1T = torch.tensor([ids], device=model.device)
    tokens = model.generate(
        ids_1T,
        attention_mask=torch.ones_like(ids_1T),
        max_new_tokens=NEW_TOKENS,
        pad_token_id=0,
        **how,
    )
    return tokens[0, len(ids) :].tolist()  # type: ignore[no-any-return]  # untyped library


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


class Models:
    """Two models loaded afresh, the second with a checkpoint's layers."""

    def __init__(self, folder: Path, weights: Path, *, drop: bool, device: str) -> None:
        """Load both."""
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self.base, self.standard = load(folder, device), load(folder, device)
        tensors = torch.load(weights, map_location=device, weights_only=True)
        self._tensors, self._drop = tensors, drop
        found = (re.match(r"(?:layer_|model\.layers\.)(\d+)[_.]np", name) for name in tensors)
        self.layers = sorted({int(match[1]) for match in found if match})

    def ids(self, text: str) -> list[int]:
        """Tokens of a text."""
        return self._tokenizer(text)["input_ids"]  # type: ignore[no-any-return]  # untyped library

    def npt(self, layers: Iterable[int]) -> Any:
        """Activate some of the layers, in a `with`."""
        return active(self.standard, self._tensors, layers, drop=self._drop)

    def npt_logits(self, text: str, layers: Iterable[int]) -> Tensor:
        """Logits with some of the layers active."""
        with self.npt(layers) as model:
            return logits(model, self.ids(text))


def load(folder: Path, device: str) -> Any:
    """Load a base in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)


def quick(
    model_folder: Path,
    weights: Path,
    prompts: Iterable[str] = QUICK,
    *,
    drop: bool,
    device: str = "cpu",
) -> list[float]:
    """Do what the guide's quick script does: load three models, one prompt at a time; MSEs."""
    load(model_folder, device)  # to see that it loads; given up again
    models = Models(model_folder, weights, drop=drop, device=device)
    scores = []
    for prompt in prompts:
        theirs = logits(models.base, models.ids(prompt))
        ours = models.npt_logits(prompt, models.layers)
        scores.append(functional.mse_loss(ours, theirs).item())
        functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0).item()
    return scores


def full(
    model_folder: Path, weights: Path, *, drop: bool, device: str = "cpu"
) -> dict[str, list[float]]:
    """Do what the guide's comprehensive script does: one prompt and one variant at a time.

    Returns:
        The MSEs of each test, in the order of its prompts or layers.
    """
    models = Models(model_folder, weights, drop=drop, device=device)
    shapes = [
        logits(models.base, models.ids(BASIC)).shape,
        models.npt_logits(BASIC, models.layers).shape,
    ]
    assert shapes[0] == shapes[1]
    tests: dict[str, list[float]] = {"npt": [], "standard": []}
    for text in STANDARD:
        theirs = logits(models.base, models.ids(text))
        tests["npt"].append(_mse(models.npt_logits(text, models.layers), theirs))
        tests["standard"].append(_mse(models.npt_logits(text, []), theirs))
    alone = [[index] for index in models.layers]
    first = [models.layers[: n + 1] for n in range(len(models.layers))]
    for name, text, variants in (
        ("per_layer", PER_LAYER, alone),
        ("progressive", PROGRESSIVE, first),
    ):
        theirs = logits(models.base, models.ids(text))
        tests[name] = [_mse(models.npt_logits(text, layers), theirs) for layers in variants]
    for text in GENERATION:
        for temperature in TEMPERATURES:
            with models.npt(models.layers) as npt:
                continuation(npt, models.ids(text), temperature=temperature)
            continuation(models.base, models.ids(text), temperature=temperature)
    return tests


def _mse(ours: Tensor, theirs: Tensor) -> float:
    """The guide's numbers; only the first is given, the others cost what they cost."""
    functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0).item()
    functional.kl_div(ours[-1].log_softmax(-1), theirs[-1].softmax(-1), reduction="sum").item()
    return functional.mse_loss(ours, theirs).item()
