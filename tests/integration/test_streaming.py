"""A streamed base is the resident one, number for number, in a fraction of its memory."""

from __future__ import annotations

import math
import threading
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub.constants
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from nptwatch.diagnostics.full import FullDiagnostic
from nptwatch.diagnostics.full_report import full_report
from nptwatch.diagnostics.generation import Continuations, end_tokens
from nptwatch.diagnostics.identity import settings_hash
from nptwatch.diagnostics.probes import QUICK_PROMPTS, tokenize
from nptwatch.diagnostics.reference import References
from nptwatch.npt.layout import Kind
from nptwatch.npt.modulation import layer_forward
from nptwatch.npt.opening import open_base
from nptwatch.npt.reader import read_checkpoint
from nptwatch.settings import FULL, QUICK, Settings
from nptwatch.store.engine import utc_now
from nptwatch.worker.bases import load_references

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nptwatch.npt.base import BaseModel

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
LAYERS = (tiny.layer(1, Kind.TRIPLE, num_ranks=2), tiny.layer(3))
CPU = torch.device("cpu")


def opened(
    folder: Path, layers: str, dtype: str = "float32", device: torch.device = CPU
) -> BaseModel:
    """Open a base one way."""
    found = open_base(str(folder), layers=layers, dtype=dtype, device=device, local_files_only=True)
    assert found.layers == layers
    return found.base


def measured(base: BaseModel, weights: Path) -> dict[str, Any]:
    """A full report; it contains the quick one."""
    diagnostic = FullDiagnostic(
        references=References(base=base),
        continuations=Continuations(base=base, folder=None, seed=0, max_new_tokens=8),
        residual="auto",
    )
    return full_report(
        diagnostic.measure(read_checkpoint(weights, max_bytes=2**24)),
        checkpoint="c",
        model_name="b",
        step=1,
        device=str(base.device),
        dtype="d",
        total_seconds=1.0,
        at=utc_now(),
    )


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value of a report, with its place."""
    if isinstance(value, dict):
        yield from chain.from_iterable(leaves(v, f"{at}.{k}") for k, v in value.items())
    elif isinstance(value, list):
        yield from chain.from_iterable(leaves(v, f"{at}[{n}]") for n, v in enumerate(value))
    else:
        yield at, value


def assert_same(found: dict[str, Any], wanted: dict[str, Any], rel: float = 1e-6) -> None:
    """Hold that two reports agree: words exactly, numbers to `rel`."""
    ours, theirs = (
        {place: value for place, value in leaves(report) if "time" not in place}
        for report in (found, wanted)
    )
    assert ours.keys() == theirs.keys()
    for place, value in theirs.items():
        if isinstance(value, float) and math.isfinite(value):
            assert ours[place] == pytest.approx(value, rel=rel, abs=1e-12), place
        else:
            assert str(ours[place]) == str(value), place


@pytest.mark.parametrize(
    ("family", "dtype", "more"),
    [
        ("llama", "float32", {}),
        ("llama", "bfloat16", {}),
        ("llama", "float32", {"tie_word_embeddings": True}),
        ("mistral", "float32", {"sliding_window": 64}),
        ("qwen2", "float32", {"tie_word_embeddings": True}),
        ("qwen3", "bfloat16", {"head_dim": 16}),
    ],
    ids=["llama", "llama-bfloat16", "llama-tied", "mistral-window", "qwen2-tied", "qwen3-bfloat16"],
)
def test_every_number_is_the_resident_one_s(
    family: str, dtype: str, more: dict[str, Any], tmp_path: Path
) -> None:
    """Quick and full, continuations included; so the base may well be streamed only sometimes."""
    folder = tiny.llama(tmp_path / "base", family=family, **more)
    weights = tiny.save(tmp_path / "npt_weights.pt", tiny.weights(*LAYERS))
    resident, streamed = (opened(folder, layers, dtype) for layers in ("resident", "streamed"))
    assert streamed.revision == resident.revision
    assert streamed.dtype == resident.dtype
    assert_same(measured(streamed, weights), measured(resident, weights))


def test_golden_numbers_are_the_resident_one_s() -> None:
    """On a checkpoint and a base that the original code made."""
    (weights,) = GOLDEN.glob("cases/single-rank4-keep/checkpoints/*/npt_weights.pt")
    reports = [
        measured(opened(GOLDEN / "base", layers), weights) for layers in ("streamed", "resident")
    ]
    assert_same(reports[0], reports[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_file_of_another_dtype_is_converted_on_the_way(dtype: str, tmp_path: Path) -> None:
    """bfloat16 in several files on disk, whatever is computed in."""
    folder = tiny.llama(tmp_path / "base")
    shard_in_bfloat16(folder)
    weights = tiny.save(tmp_path / "npt_weights.pt", tiny.weights(*LAYERS))
    reports = [
        measured(opened(folder, layers, dtype), weights) for layers in ("streamed", "resident")
    ]
    assert_same(reports[0], reports[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: not tested")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_gets_the_same_numbers(dtype: str, tmp_path: Path) -> None:
    """Pinned memory and a copy stream of its own hand over what was read, and nothing early."""
    folder = tiny.llama(tmp_path / "base", hidden=256, layers=12)
    shard_in_bfloat16(folder)
    tensors = tiny.weights(*LAYERS, hidden=256, intermediate=768)
    weights = tiny.save(tmp_path / "npt_weights.pt", tensors)
    bases = [opened(folder, way, dtype, torch.device("cuda")) for way in ("streamed", "resident")]
    assert_same(measured(bases[0], weights), measured(bases[1], weights), rel=1e-5)


def shard_in_bfloat16(folder: Path) -> None:
    """Write a base's weights again, in three files with an index."""
    import json

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {}
    for number in range(3):
        name = f"model-{number + 1:05}-of-00003.safetensors"
        part = {key: tensors[key].bfloat16() for key in sorted(tensors)[number::3]}
        save_file(part, folder / name, metadata={"format": "pt"})
        where.update(dict.fromkeys(part, name))
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_what_is_known_of_a_resident_base_is_used_for_a_streamed_one(tmp_path: Path) -> None:
    """Cached references and results are of a content, not of a way to hold it."""
    folder = tiny.llama(tmp_path / "base", layers=2)
    for layers, computed in (("resident", 1), ("streamed", 0)):
        base = opened(folder, layers)
        references = References(base=base, folder=tmp_path / "cache")
        references.of(tokenize(base, QUICK_PROMPTS))
        assert references.computed == computed
    plain, streamed = Settings(), Settings.model_validate({"base": {"layers": "streamed"}})
    for profile in (QUICK, FULL):
        assert settings_hash(streamed, profile) == settings_hash(plain, profile)


def test_a_base_of_the_hub_is_opened_from_its_cache_and_named_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links to blobs in a folder of their own, of the commit that names the revision."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--somebody--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tiny.llama(cached / "snapshots" / commit, layers=2)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    (cached / "blobs").mkdir()
    blob = (snapshot / "model.safetensors").rename(cached / "blobs" / "weights")
    (snapshot / "model.safetensors").symlink_to(blob)
    for layers in ("streamed", "resident"):
        base = opened(Path("somebody/tiny"), layers)
        assert base.revision == f"hub:{commit[:16]}"
        assert [index for index, _ in base.each_layer()] == [0, 1]


def test_the_end_of_a_text_is_the_one_that_the_folder_names(tmp_path: Path) -> None:
    """generation_config.json counts, as it does for a resident base."""
    folder = tiny.llama(tmp_path / "base", layers=1)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 7]}')
    ends = [end_tokens(opened(folder, layers)) for layers in ("streamed", "resident")]
    assert ends == [{1, 7}, {1, 7}]


def test_a_layer_has_weights_in_its_turn_only(tmp_path: Path) -> None:
    """Who keeps a layer gets an error and no other layer's numbers."""
    base = opened(tiny.llama(tmp_path / "base"), "streamed")
    h_1TD = base.embed(torch.tensor([[1, 2, 3]]))
    rotary = base.rotary(h_1TD, torch.arange(3))
    kept: list[Any] = []  # Any: decoder layers
    for index, layer in base.each_layer(1):
        assert index == len(kept) + 1
        assert all(old.mlp.up_proj.weight.is_meta for old in kept)
        assert torch.isfinite(layer_forward(layer, h_1TD, position_embeddings=rotary)).all()
        kept.append(layer)
    assert len(kept) == 3
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        layer_forward(kept[-1], h_1TD, position_embeddings=rotary)


def test_a_walk_that_is_left_early_disturbs_nothing(tmp_path: Path) -> None:
    """Its thread ends, and its end does not empty a layer that another walk computes with."""
    base = opened(tiny.llama(tmp_path / "base"), "streamed")
    left, other = base.each_layer(), base.each_layer()
    _, first = next(left)
    _, same = next(other)
    assert readers()
    left.close()  # type: ignore[attr-defined]  # it is a generator
    assert first.mlp.up_proj.weight.is_meta
    assert torch.isfinite(same.mlp.up_proj.weight).all()
    assert [index for index, _ in other] == [1, 2, 3]
    assert not readers()


def readers() -> list[str]:
    """Names of the reading threads that live."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("nptwatch-layers")]


def test_a_token_that_is_none_is_refused(tmp_path: Path) -> None:
    """Beyond the embedding's rows lies some other tensor."""
    base = opened(tiny.llama(tmp_path / "base", layers=1), "streamed")
    with pytest.raises(IndexError, match="of a vocabulary of 258"):
        base.embed(torch.tensor([[258]]))


def test_the_worker_streams_where_the_settings_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the log says how the base is held, and why."""
    folder = tiny.llama(tmp_path / "base", layers=1)
    for layers, told in (("streamed", "as base.layers says"), ("auto", "which are free")):
        settings = Settings.model_validate(
            {"state_dir": tmp_path, "worker": {"device": "cpu"}, "base": {"layers": layers}}
        )
        load_references(settings, str(folder))
        assert told in capsys.readouterr().out
