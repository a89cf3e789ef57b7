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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from nptwatch.npt.base import BaseModel

QUICK_PROMPTS = (
    "The capital of France is",
    "2 + 2 equals",
    "The largest planet in our solar system is",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Prompts as one sequence.

    Attributes:
        ids_N: token ids, prompt after prompt.
        positions_N: each token's place in its own prompt.
        mask_NN: True where the row's token sees the column's: same prompt, not later.
        lengths: tokens of each prompt.
    """

    prompts: tuple[str, ...]
    ids_N: Tensor
    positions_N: Tensor
    mask_NN: Tensor
    lengths: tuple[int, ...]

    @property
    def key(self) -> str:
        """Content identity: same prompts and same ids."""
        facts = json.dumps([self.prompts, self.lengths, self.ids_N.tolist()])
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


def tokenize(base: BaseModel, prompts: Sequence[str]) -> Probes:
    """Tokenise prompts with the base's tokenizer, special tokens on."""
    ids = [base.tokenizer(prompt)["input_ids"] for prompt in prompts]
    lengths = tuple(map(len, ids))
    prompt_N = torch.arange(len(ids)).repeat_interleave(torch.tensor(lengths))
    positions_N = torch.cat([torch.arange(length) for length in lengths])
    same_NN = prompt_N[:, None] == prompt_N[None, :]
    earlier_NN = positions_N[:, None] >= positions_N[None, :]
    return Probes(
        prompts=tuple(prompts),
        ids_N=torch.tensor([token for tokens in ids for token in tokens]).to(base.device),
        positions_N=positions_N.to(base.device),
        mask_NN=(same_NN & earlier_NN).to(base.device),
        lengths=lengths,
    )
