"""A base of Llama-3.2-1B's shape and its checkpoints, on disk, of random weights.

`python tests/benchmarks/one_b.py FOLDER` writes them; the big one takes half a minute and 5 GB.
The tokenizer gives about as many tokens as Llama's does on the guide's texts: one a word.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASE = "base"
GOOD, POOR = "good", "poor"
NEARLY_NOTHING = 1e-4
"""Size of the attention output in the last layers, beside what is usual. It makes an NPT with
weights near zero continue as the base does: what it sees instead of h + a is h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a base and of its checkpoints.

    Attributes:
        grown: numbers of NPT layers, the last ones each, of checkpoints that are compared.
        disk_bytes: of everything that is written; memory_bytes: what two copies in float32 take.
    """

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    rank: int
    num_ranks: int
    grown: tuple[int, ...]
    disk_bytes: int
    memory_bytes: int

    @property
    def npt_layers(self) -> tuple[int, ...]:
        """The last three."""
        return self.last(3)

    def last(self, count: int) -> tuple[int, ...]:
        """Indices of the last layers."""
        return tuple(range(self.layers - count, self.layers))


ONE_B = Shape(
    name="1b",
    hidden=2048,
    intermediate=8192,
    layers=16,
    heads=32,
    key_value_heads=8,
    vocabulary=128_256,
    rank=256,
    num_ranks=4,
    grown=(3, 8, 16),
    disk_bytes=7 * 10**9,
    memory_bytes=14 * 10**9,
)
SMALL = Shape(
    name="small",
    hidden=512,
    intermediate=2048,
    layers=8,
    heads=8,
    key_value_heads=2,
    vocabulary=32_000,
    rank=64,
    num_ranks=4,
    grown=(3, 5, 8),
    disk_bytes=10**9,
    memory_bytes=10**9,
)
SHAPES = {shape.name: shape for shape in (ONE_B, SMALL)}


def make_base(folder: Path, shape: Shape, *, attention: float = NEARLY_NOTHING) -> Path:
    """Write a random base in bfloat16, head and embedding tied.

    Args:
        attention: what the attention output of the last three layers is multiplied by.
    """
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=2048,
        initializer_range=0.02 * (ONE_B.hidden / shape.hidden) ** 0.5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        for index in shape.npt_layers:
            model.model.layers[index].self_attn.o_proj.weight.mul_(attention)
    model.save_pretrained(folder)
    _save_tokenizer(folder, shape.vocabulary)
    return folder


def _save_tokenizer(folder: Path, vocabulary: int) -> None:
    """Learn the words of the guide's texts; the rest of the vocabulary are words never seen."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocabulary, 2000),
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(_texts(), trainer)
    known: dict[str, Any] = json.loads(learner.to_str())["model"]
    known["vocab"] |= {f"Ġw{n}": n for n in range(len(known["vocab"]), vocabulary)}
    merges = [tuple(pair) for pair in known["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=known["vocab"], merges=merges))
    tokenizer.pre_tokenizer = learner.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends).save_pretrained(folder)


def _texts() -> list[str]:
    from plain_reference import (
        BASIC,
        GENERATION,
        PER_LAYER,
        PROGRESSIVE,
        QUICK,
        STANDARD,
    )

    return [*QUICK, BASIC, *STANDARD, PER_LAYER, *GENERATION, PROGRESSIVE]


def make_checkpoint(path: Path, shape: Shape, layers: tuple[int, ...], *, scale: float) -> Path:
    """Write a random dual checkpoint in float32, as trainers do.

    Args:
        scale: of the weights; 0.3 on the last three layers does nearly nothing, 30 spoils them.
    """
    import tiny

    layouts = [tiny.layer(i, rank=shape.rank, num_ranks=shape.num_ranks) for i in layers]
    sizes = {"hidden": shape.hidden, "intermediate": shape.intermediate}
    return tiny.save(path, tiny.weights(*layouts, scale=scale, **sizes))


def weights_of(folder: Path, name: str) -> Path:
    """Say where a checkpoint's weights lie: good, poor, or grown-<number of NPT layers>."""
    return folder / name / "checkpoint-1000" / "npt_weights.pt"


def make_all(folder: Path, shape: Shape, *, grown: bool = True) -> None:
    """Write a base and all checkpoints."""
    make_base(folder / BASE, shape)
    make_checkpoint(weights_of(folder, GOOD), shape, shape.npt_layers, scale=0.3)
    make_checkpoint(weights_of(folder, POOR), shape, shape.npt_layers, scale=30.0)
    for count in shape.grown if grown else ():
        file = weights_of(folder, f"grown-{count}")
        make_checkpoint(file, shape, shape.last(count), scale=0.3)


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default=ONE_B.name)
    parser.add_argument("--no-grown", action="store_true", help="only the checkpoints of 3 layers")
    asked = parser.parse_args()
    make_all(asked.folder, SHAPES[asked.shape], grown=not asked.no_grown)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
