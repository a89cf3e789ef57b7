"""A base of the shape of Llama-3.2-1B and an NPT checkpoint of it, random, written straight to disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import tiny
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

STD = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a base with tied embeddings, and the layers that an NPT of it has."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    npt_layers: tuple[int, ...]
    rank: int = 256
    num_ranks: int = 4

    @property
    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of each weight."""
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        kv = self.hidden // self.heads * self.kv_heads
        for layer in range(self.layers):
            for name, shape in {
                "self_attn.q_proj": (self.hidden, self.hidden),
                "self_attn.k_proj": (kv, self.hidden),
                "self_attn.v_proj": (kv, self.hidden),
                "self_attn.o_proj": (self.hidden, self.hidden),
                "mlp.gate_proj": (self.intermediate, self.hidden),
                "mlp.up_proj": (self.intermediate, self.hidden),
                "mlp.down_proj": (self.hidden, self.intermediate),
                "input_layernorm": (self.hidden,),
                "post_attention_layernorm": (self.hidden,),
            }.items():
                yield f"model.layers.{layer}.{name}.weight", shape
        yield "model.norm.weight", (self.hidden,)


ONE_B = Shape(
    hidden=2048,
    intermediate=8192,
    layers=16,
    heads=32,
    kv_heads=8,
    vocabulary=128_256,
    npt_layers=(13, 14, 15),
)
SMALL = Shape(
    hidden=512,
    intermediate=2048,
    layers=8,
    heads=8,
    kv_heads=2,
    vocabulary=32_000,
    npt_layers=(5, 6, 7),
    rank=64,
)
SHAPES = {"1b": ONE_B, "small": SMALL}


def base(folder: Path, shape: Shape, *, seed: int = 0) -> Path:
    """Write a base: bfloat16, one safetensors file, never more than a tensor in memory."""
    tiny.llama(folder, layers=1)  # for its tokenizer
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, sizes in shape.tensors:
        begin, end = end, end + 2 * prod(sizes)
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [begin, end]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    generator = torch.Generator().manual_seed(seed)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, sizes in shape.tensors:
            tensor = torch.ones(sizes, dtype=torch.bfloat16)
            if "norm" not in name:
                tensor.normal_(std=STD, generator=generator)
            tensor.view(torch.uint8).numpy().tofile(file)
    return folder


def checkpoint(path: Path, shape: Shape, layers: Sequence[int] = (), *, scale: float = 0.1) -> Path:
    """Write a checkpoint of dual NPT layers, float32.

    Args:
        layers: which; the shape's own if none.
    """
    layouts = [
        tiny.layer(index, rank=shape.rank, num_ranks=shape.num_ranks)
        for index in layers or shape.npt_layers
    ]
    sizes = {"hidden": shape.hidden, "intermediate": shape.intermediate}
    return tiny.save(path, tiny.weights(*layouts, scale=scale, **sizes))
