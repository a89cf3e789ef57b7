"""Tiny real Llamas and NPT checkpoints, made from code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nptwatch.npt.layout import Kind, LayerLayout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor


def llama(
    folder: Path,
    *,
    family: str = "llama",
    hidden: int = 32,
    layers: int = 4,
    seed: int = 0,
    **more: object,
) -> Path:
    """Save a random Llama with a small tokenizer; logits have a standard deviation near 2.5.

    Args:
        family: another model type of transformers.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends)
    settings = {
        "vocab_size": len(vocabulary),
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
        **more,
    }
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    if not settings["tie_word_embeddings"]:
        with torch.no_grad():
            model.lm_head.weight.mul_(2.5 / (0.1 * hidden**0.5))
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def weights(
    *layers: LayerLayout,
    hidden: int = 32,
    intermediate: int = 96,
    scale: float = 0.3,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random NPT tensors of the given layout."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * scale * shape[0] ** -0.5
        for layer in layers
        for name, shape in layer.shapes(hidden, intermediate)
    }


def distilled(base_folder: Path, mse: float, texts: Sequence[str] = ()) -> dict[str, Tensor]:
    """Really train a last layer's NPT until its MSE is just below `mse`.

    Args:
        texts: what on; the quick probes if none.
    """
    from nptwatch.diagnostics.probes import QUICK_PROMPTS, tokenize
    from nptwatch.npt.base import load_base
    from nptwatch.npt.layout import infer_layout
    from nptwatch.npt.modulation import layer_forward, npt_layers

    base = load_base(str(base_folder), local_files_only=True)
    last = base.shape.num_layers - 1
    sizes = {"hidden": base.shape.hidden_size, "intermediate": base.shape.intermediate_size}
    start = weights(layer(last, rank=32), scale=0.1, **sizes)
    trained = {name: torch.nn.Parameter(tensor) for name, tensor in start.items()}
    layout = infer_layout({name: tuple(t.shape) for name, t in trained.items()}, base.shape)
    optimizer = torch.optim.Adam(trained.values(), lr=1e-3)
    probes = tokenize(base, texts or QUICK_PROMPTS)
    h_1ND = base.embed(probes.ids_N[None])
    rotary, mask = base.rotary(h_1ND, probes.positions_N), probes.segments
    for inner in base.layers[:last]:
        h_1ND = layer_forward(inner, h_1ND, position_embeddings=rotary, mask=mask)
    out_1ND = layer_forward(base.layers[last], h_1ND, position_embeddings=rotary, mask=mask)
    target_NV = base.head(base.norm(out_1ND[0]))
    for _ in range(1000):
        npt = npt_layers(layout, trained, dtype=base.dtype, device=base.device)[last]
        out_1ND = layer_forward(
            base.layers[last], h_1ND, position_embeddings=rotary, mask=mask, npt=npt
        )
        loss = torch.nn.functional.mse_loss(base.head(base.norm(out_1ND[0])), target_NV)
        if loss.item() < mse:
            return {name: tensor.detach() for name, tensor in trained.items()}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError("training did not converge")


def layer(
    index: int,
    kind: Kind = Kind.DUAL,
    *,
    rank: int = 4,
    num_ranks: int = 1,
    prefix: str = "layer_{}_np.",
) -> LayerLayout:
    """Return the layout of one layer."""
    return LayerLayout(
        index=index, kind=kind, rank=rank, num_ranks=num_ranks, prefix=prefix.format(index)
    )


def save(path: Path, tensors: object) -> Path:
    """Save as trainers do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)
    return path
