"""The texts that are measured on, as token ids.

Legend: B prompts, T tokens of the longest prompt, N tokens of all prompts together (no padding).
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
    """Prompts as one right-padded batch; causal attention never looks at the padding.

    Attributes:
        ids_BT: token ids, 0 where a prompt has ended.
        lengths: tokens of each prompt.
    """

    prompts: tuple[str, ...]
    ids_BT: Tensor
    lengths: tuple[int, ...]

    @property
    def key(self) -> str:
        """Content identity: same prompts and same ids."""
        facts = json.dumps([self.prompts, self.ids_BT.tolist()])
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    def pack(self, padded_BTX: Tensor) -> Tensor:
        """Drop the padding: (B,T,X) -> (N,X)."""
        return padded_BTX[self._mask_BT.to(padded_BTX.device)]

    def unpack(self, packed_NX: Tensor) -> Tensor:
        """Put zeros where the padding was: (N,X) -> (B,T,X)."""
        mask_BT = self._mask_BT.to(packed_NX.device)
        padded_BTX = packed_NX.new_zeros(*mask_BT.shape, packed_NX.shape[-1])
        padded_BTX[mask_BT] = packed_NX
        return padded_BTX

    @property
    def _mask_BT(self) -> Tensor:
        longest = self.ids_BT.shape[1]
        return torch.arange(longest)[None] < torch.tensor(self.lengths)[:, None]


def tokenize(base: BaseModel, prompts: Sequence[str]) -> Probes:
    """Tokenise prompts with the base's tokenizer, special tokens on."""
    ids = [base.tokenizer(prompt)["input_ids"] for prompt in prompts]
    ids_BT = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long)
    for row, tokens in enumerate(ids):
        ids_BT[row, : len(tokens)] = torch.tensor(tokens)
    return Probes(prompts=tuple(prompts), ids_BT=ids_BT, lengths=tuple(map(len, ids)))
