"""The texts that are measured on, as token ids.

Legend: N tokens of all prompts together.

The prompts lie one after the other in a single sequence, each with positions of its own and blind
to the others: no padding is ever computed, and every prompt gives what it gives alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nptwatch.errors import ConfigError
from nptwatch.npt.attention import Segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from nptwatch.npt.base import BaseModel

MAX_TOKENS = 1024
"""Of all prompts together: their logits are kept in memory, a row of the vocabulary each."""

QUICK_PROMPTS = (
    "The capital of France is",
    "2 + 2 equals",
    "The largest planet in our solar system is",
)
BASIC_PROMPT = "Hello world"
STANDARD_PROMPTS = (
    "The quick brown fox jumps over the lazy dog.",
    "In the beginning was the Word, and the Word was with God.",
    "To be or not to be, that is the question.",
)
PER_LAYER_PROMPT = "The capital of France is Paris, and it is known for"
PROGRESSIVE_PROMPT = "Machine learning is a subset of artificial intelligence"
GENERATION_PROMPTS = ("The capital of France is", "In Python, a list is", "The quick brown fox")
TEMPERATURES = (0.1, 0.7, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Prompts as one sequence.

    Attributes:
        prompts: none where the sequences are no texts.
        ids_N: token ids, prompt after prompt.
        positions_N: each token's place in its own prompt.
        lengths: tokens of each prompt.
    """

    prompts: tuple[str, ...]
    ids_N: Tensor
    positions_N: Tensor
    lengths: tuple[int, ...]

    def rows(self, prompt: int) -> slice:
        """Where a prompt's tokens lie."""
        start = sum(self.lengths[:prompt])
        return slice(start, start + self.lengths[prompt])

    @property
    def segments(self) -> Segments:
        """The prompts as an attention mask."""
        return Segments.of(self.lengths, self.ids_N.device)

    @property
    def key(self) -> str:
        """Content identity: same prompts and same ids."""
        facts = json.dumps([self.prompts, self.lengths, self.ids_N.tolist()])
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


def tokenize(base: BaseModel, prompts: Sequence[str]) -> Probes:
    """Tokenise prompts with the base's tokenizer, special tokens on.

    Raises:
        ConfigError: together they are too long to be measured at once, or one is empty.
    """
    ids = [base.tokenizer(prompt)["input_ids"] for prompt in prompts]
    lengths = tuple(map(len, ids))
    _require_fitting(base, prompts, lengths)
    return pack(base, ids, prompts)


def pack(
    base: BaseModel, ids: Sequence[Sequence[int]], prompts: Sequence[str] | None = None
) -> Probes:
    """Lay token sequences one after the other.

    Args:
        ids: of each sequence, none empty.
        prompts: the texts they are of, where they are of texts.
    """
    lengths = tuple(map(len, ids))
    positions_N = torch.cat([torch.arange(length) for length in lengths])
    return Probes(
        prompts=tuple(prompts or ()),
        ids_N=torch.tensor([token for tokens in ids for token in tokens]).to(base.device),
        positions_N=positions_N.to(base.device),
        lengths=lengths,
    )


def _require_fitting(base: BaseModel, prompts: Sequence[str], lengths: Sequence[int]) -> None:
    longest = max(lengths)
    config = base.model.config
    window = getattr(config, "sliding_window", None)  # attention within segments has none
    limit = min(MAX_TOKENS, config.max_position_embeddings, window or MAX_TOKENS)
    if min(lengths) == 0:
        raise ConfigError("a probe text gives no token: remove empty texts")
    if longest > limit:
        start = prompts[lengths.index(longest)][:40]
        raise ConfigError(f"probe text {start!r}... has {longest} tokens; the most is {limit}")
    if sum(lengths) > MAX_TOKENS:
        raise ConfigError(
            f"the probe texts have {sum(lengths)} tokens together; the most is {MAX_TOKENS}: "
            "use fewer or shorter ones (diagnostic.probes)"
        )
