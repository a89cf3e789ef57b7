"""The sweep equals the plain reference: one variant at a time, whole forward passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tiny
import torch
from plain_reference import active, logits
from plain_reference import scores as plain_scores

from nptwatch.diagnostics.probes import QUICK_PROMPTS, tokenize
from nptwatch.diagnostics.quick import QuickDiagnostic
from nptwatch.diagnostics.reference import References, compute_reference
from nptwatch.diagnostics.sweep import Variant, sweep
from nptwatch.npt.base import BaseModel, load_base
from nptwatch.npt.layout import Kind, infer_layout
from nptwatch.npt.modulation import npt_layers
from nptwatch.npt.reader import Checkpoint, read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

PROMPTS = ("A", "The quick brown fox jumps over the lazy dog.", "2 + 2 equals")
LAYERS = (
    tiny.layer(1, Kind.SINGLE, num_ranks=3),
    tiny.layer(2, Kind.TRIPLE, rank=7, prefix="model.layers.{}.np_component."),
    tiny.layer(3, Kind.DUAL, num_ranks=2),
)


@pytest.fixture(
    scope="module",
    params=[{}, {"tie_word_embeddings": True}, {"head_dim": 16, "attention_bias": True}],
    ids=["plain", "tied", "wide-heads"],
)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """Random Llamas of several makes."""
    folder = tiny.llama(tmp_path_factory.mktemp("base"), **request.param)
    return load_base(str(folder), local_files_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_variant_in_one_batch_equals_it_alone(base: BaseModel, dtype: torch.dtype) -> None:
    """All subsets and both rules, mixed kinds and prefixes, as rows of one sweep: same numbers."""
    tensors = {n: t.to(dtype) for n, t in tiny.weights(*LAYERS).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    layout = infer_layout(shapes, base.shape)
    npt = npt_layers(layout, tensors, dtype=base.dtype, device=base.device)
    variants = [
        Variant(active=frozenset(subset), drop=drop)
        for subset in ({1}, {2}, {3}, {1, 2}, {1, 3}, {1, 2, 3})
        for drop in (False, True)
    ]
    probes = tokenize(base, PROMPTS)
    swept = sweep(base, npt, probes, compute_reference(base, probes), variants).outcomes
    for variant, outcome in zip(variants, swept, strict=True):
        for prompt, score in zip(PROMPTS, outcome.scores, strict=True):
            ids = base.tokenizer(prompt)["input_ids"]
            base_TV = logits(base.model, ids)
            with active(base.model, tensors, variant.active, drop=variant.drop) as model:
                npt_TV = logits(model, ids)
            wanted = plain_scores(npt_TV, base_TV, torch.tensor(ids))
            assert wanted["mse"] > 1e-4  # the variants really differ from the base
            for name, number in wanted.items():
                assert getattr(score, name) == pytest.approx(number, rel=1e-4, abs=2e-6), name


def test_a_zero_npt_with_its_own_mlp_input_equals_the_base_formula(base: BaseModel) -> None:
    """Zero weights leave MLP(LN(h)): no modulation, and finite numbers."""
    tensors = {n: torch.zeros_like(t) for n, t in tiny.weights(*LAYERS).items()}
    layout = infer_layout({n: tuple(t.shape) for n, t in tensors.items()}, base.shape)
    npt = npt_layers(layout, tensors, dtype=base.dtype, device=base.device)
    probes = tokenize(base, PROMPTS)
    variant = Variant(active=frozenset(npt), drop=False)
    (outcome,) = sweep(base, npt, probes, compute_reference(base, probes), [variant]).outcomes
    for prompt, score in zip(PROMPTS, outcome.scores, strict=True):
        ids = base.tokenizer(prompt)["input_ids"]
        with active(base.model, {}, variant.active, drop=False) as model:
            npt_TV = logits(model, ids)
        wanted = torch.nn.functional.mse_loss(npt_TV, logits(base.model, ids)).item()
        assert score.mse == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_weights_are_invalid_and_named(
    base: BaseModel, tmp_path: Path, bad: float
) -> None:
    """NaN or infinity in a tensor: INVALID, never POOR, and the tensor is named."""
    tensors = tiny.weights(*LAYERS)
    tensors["layer_3_np.W_down_up.1"][2, 1] = bad
    path = tiny.save(tmp_path / "npt_weights.pt", tensors)
    result = quick(base).measure(read(path))
    assert result.grade == "INVALID"
    assert "layer_3_np.W_down_up.1" in result.why
    assert result.mean is None


def test_overflow_in_the_forward_pass_is_invalid_and_names_the_layer(
    base: BaseModel, tmp_path: Path
) -> None:
    """Finite weights whose products overflow: INVALID, first bad layer named."""
    tensors = tiny.weights(*LAYERS)
    for name in tensors:
        if name.startswith("model.layers.2."):
            tensors[name] *= 1e25
    path = tiny.save(tmp_path / "npt_weights.pt", tensors)
    result = quick(base).measure(read(path))
    assert result.grade == "INVALID"
    assert "layer 2" in result.why


def test_an_overflow_reaches_no_other_variant(base: BaseModel) -> None:
    """Infinity in one variant's attention stays there: its neighbours give what they give alone."""
    tensors = tiny.weights(*LAYERS)
    for name in [name for name in tensors if name.startswith("layer_1_")]:
        tensors[name] *= 1e12
    layout = infer_layout({n: tuple(t.shape) for n, t in tensors.items()}, base.shape)
    npt = npt_layers(layout, tensors, dtype=base.dtype, device=base.device)
    probes = tokenize(base, PROMPTS)
    reference = compute_reference(base, probes)
    variants = [Variant(active=frozenset(active)) for active in ({1}, {3}, {2, 3}, ())]
    swept = sweep(base, npt, probes, reference, variants, local_on=range(len(PROMPTS)))
    assert swept.outcomes[0].non_finite == "output of layer 1"
    alone = sweep(base, npt, probes, reference, variants[1:]).outcomes
    for beside, wanted in zip(swept.outcomes[1:], alone, strict=True):
        for score, number in zip(beside.scores, wanted.scores, strict=True):
            assert score.mse == pytest.approx(number.mse, rel=1e-5, abs=1e-12)
    assert [own.layer for own in swept.local[False]] == [2, 3]


@pytest.mark.parametrize("drop", [False, True], ids=["keep", "drop"])
def test_a_layer_s_own_error_is_its_output_on_the_base_s_input(
    base: BaseModel, *, drop: bool
) -> None:
    """MSE to the base layer's output, both fed the stream that the library's own pass gives it."""
    tensors = tiny.weights(*LAYERS)
    layout = infer_layout({n: tuple(t.shape) for n, t in tensors.items()}, base.shape)
    npt = npt_layers(layout, tensors, dtype=base.dtype, device=base.device)
    probes = tokenize(base, PROMPTS)
    variant = Variant(active=frozenset(npt), drop=drop)
    swept = sweep(
        base, npt, probes, compute_reference(base, probes), [variant], local_on=range(len(PROMPTS))
    )
    assert [own.layer for own in swept.local[drop]] == [1, 2, 3]
    for own in swept.local[drop]:
        wanted = [own_error(base, tensors, own.layer, prompt, drop=drop) for prompt in PROMPTS]
        mse, relative = (sum(numbers) / len(numbers) for numbers in zip(*wanted, strict=True))
        assert own.mse == pytest.approx(mse, rel=1e-4)
        assert own.relative == pytest.approx(relative, rel=1e-4)


def own_error(
    base: BaseModel, tensors: dict[str, torch.Tensor], layer: int, prompt: str, *, drop: bool
) -> tuple[float, float]:
    """One layer's error by hooks on whole forward passes: input from the base, output from both."""
    ids = base.tokenizer(prompt)["input_ids"]
    seen: list[torch.Tensor] = []

    def look(_module: object, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.extend((given[0], output))

    for active_layers in ((), (layer,)):
        with active(base.model, tensors, active_layers, drop=drop) as model:
            hook = model.model.layers[layer].register_forward_hook(look)
            logits(model, ids)
            hook.remove()
    before, base_out, same, npt_out = seen
    torch.testing.assert_close(before, same)  # nothing is active below it
    mse = torch.nn.functional.mse_loss(npt_out, base_out).item()
    return mse, mse / torch.nn.functional.mse_loss(base_out, before).item()


def test_no_accuracy_measures_nothing_and_grades_nothing(base: BaseModel, tmp_path: Path) -> None:
    """Structure and one forward pass; no number is made up; broken weights are still found."""
    path = tiny.save(tmp_path / "npt_weights.pt", tiny.weights(*LAYERS))
    result = quick(base).measure(read(path), accuracy=False)
    assert (result.grade, result.mean, result.scores) == (None, None, ())
    tensors = {name: tensor * 1e25 for name, tensor in tiny.weights(*LAYERS).items()}
    broken = tiny.save(tmp_path / "other" / "npt_weights.pt", tensors)
    assert quick(base).measure(read(broken), accuracy=False).grade == "INVALID"


def test_the_base_is_computed_once_and_kept_on_disk(base: BaseModel, tmp_path: Path) -> None:
    """A second diagnostic, and a second process's cache, never compute the base again."""
    path = tiny.save(tmp_path / "npt_weights.pt", tiny.weights(*LAYERS))
    first = References(base=base, folder=tmp_path / "cache")
    numbers = [
        QuickDiagnostic(references=first, residual="auto").measure(read(path)).mean
        for _ in range(2)
    ]
    assert first.computed == 1
    second = References(base=base, folder=tmp_path / "cache")
    again = QuickDiagnostic(references=second, residual="auto").measure(read(path))
    assert second.computed == 0
    assert numbers == [again.mean] * 2


def test_a_damaged_cache_is_computed_again(base: BaseModel, tmp_path: Path) -> None:
    """Half a cache file, or an unwritable folder, costs time and nothing else."""
    probes = tokenize(base, QUICK_PROMPTS)
    References(base=base, folder=tmp_path).of(probes)
    (kept,) = tmp_path.glob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:1000])
    references = References(base=base, folder=tmp_path)
    damaged = references.of(probes)
    assert references.computed == 1
    blocked = References(base=base, folder=kept / "below-a-file")
    torch.testing.assert_close(blocked.of(probes).normed_ND, damaged.normed_ND)


def test_the_base_s_weights_are_shared_and_unchanged(base: BaseModel, tmp_path: Path) -> None:
    """Measuring neither copies nor changes a base weight."""
    before = {name: (p.data_ptr(), p.sum().item()) for name, p in base.model.named_parameters()}
    quick(base).measure(read(tiny.save(tmp_path / "npt_weights.pt", tiny.weights(*LAYERS))))
    after = {name: (p.data_ptr(), p.sum().item()) for name, p in base.model.named_parameters()}
    assert before == after


def read(path: Path) -> Checkpoint:
    """Read a checkpoint."""
    return read_checkpoint(path, max_bytes=2**20)


def quick(base: BaseModel) -> QuickDiagnostic:
    """Return a diagnostic with the default rule."""
    return QuickDiagnostic(references=References(base=base), residual="auto")
