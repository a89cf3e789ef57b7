"""Attention over many short texts that lie in one sequence, each blind to the others.

Legend: N tokens of all segments together, S segments, T tokens of the longest, H heads, E the size
of a head.

transformers lets a model attend by a function that is registered under a name. Ours takes the
base's own queries, keys and values, packed, and attends within each segment. Nothing of one segment
can reach another, not even NaN (a mask would not hold it: 0 x NaN is NaN), and no N x N mask is
made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "nptwatch_segments"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Where the texts of a packed sequence begin and end; goes where an attention mask would.

    Attributes:
        token_ST: each segment's tokens; a shorter one repeats its last token.
        place_N: where each packed token lies in the flattened (S,T).
    """

    token_ST: Tensor
    place_N: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Segments:
        """Describe segments that lie one after the other.

        Args:
            lengths: tokens of each; at least one segment, none empty.
        """
        lengths_S = torch.tensor(lengths)
        column_T = torch.arange(max(lengths))
        first_S1 = (lengths_S.cumsum(0) - lengths_S)[:, None]
        token_ST = first_S1 + torch.minimum(column_T[None, :], lengths_S[:, None] - 1)
        real_ST = column_T[None, :] < lengths_S[:, None]
        place_N = real_ST.flatten().nonzero()[:, 0]
        return cls(token_ST=token_ST.to(device), place_N=place_N.to(device))


def attend(
    module: Any,  # noqa: ANN401 - a transformers attention module
    query_BHNE: Tensor,
    key_BHNE: Tensor,
    value_BHNE: Tensor,
    attention_mask: Segments | Tensor | None,
    scaling: float | None = None,
    **more: Any,  # noqa: ANN401 - as transformers passes it
) -> tuple[Tensor, None]:
    """Attend causally within each segment; any other mask is left to transformers.

    Returns:
        (B,N,H,E) and no attention weights, as transformers wants it.
    """
    if not isinstance(attention_mask, Segments):
        return _library()(  # type: ignore[no-any-return]  # untyped library
            module, query_BHNE, key_BHNE, value_BHNE, attention_mask, scaling=scaling, **more
        )
    token_ST = attention_mask.token_ST
    query_SHTE, key_SHTE, value_SHTE = (
        packed_BHNE[0][:, token_ST].transpose(0, 1)
        for packed_BHNE in (query_BHNE, key_BHNE, value_BHNE)
    )
    # the repeated last tokens come after all real ones: being causal keeps them unseen
    out_SHTE = functional.scaled_dot_product_attention(
        query_SHTE,
        key_SHTE,
        value_SHTE,
        is_causal=True,
        scale=scaling,
        enable_gqa=query_SHTE.shape[1] != key_SHTE.shape[1],
    )
    return out_SHTE.transpose(1, 2).flatten(0, 1)[attention_mask.place_N][None], None


@cache
def register() -> str:
    """Make `attend` known to transformers; give the name that a model asks for it by."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)  # of whole-model passes, windows included
    return NAME


@cache
def _library() -> Any:  # noqa: ANN401 - a transformers function
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward
