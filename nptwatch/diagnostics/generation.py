"""Continuations of a prompt by the NPT, or by the base alone.

Legend: T tokens, D hidden_size, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nptwatch.npt.modulation import Rows, layer_forward

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.modulation import NptLayer


@torch.inference_mode()
def greedy(
    base: BaseModel,
    npt: Mapping[int, NptLayer],
    ids: Sequence[int],
    *,
    drop: bool = False,
    max_new_tokens: int = 20,
    use_cache: bool = True,
) -> list[int]:
    """Continue a prompt with the most likely token each time, until the end-of-sequence token.

    Args:
        npt: active layers, by index; empty: the base alone.
        ids: the prompt's tokens.
        drop: the residual rule of the NPT layers.
        use_cache: keep keys and values of earlier tokens (same tokens, less work).

    Returns:
        Prompt and continuation.
    """
    from transformers import DynamicCache

    tokens = list(ids)
    cache = DynamicCache(config=base.model.config) if use_cache else None
    ends = _end_tokens(base)
    for _ in range(max_new_tokens):
        done = len(tokens) - 1 if cache is not None and len(tokens) > len(ids) else 0
        last_V = _last_logits(base, npt, tokens[done:], done, drop=drop, cache=cache)
        tokens.append(int(last_V.argmax()))
        if tokens[-1] in ends:
            break
    return tokens


def _last_logits(
    base: BaseModel,
    npt: Mapping[int, NptLayer],
    tokens: Sequence[int],
    start: int,
    *,
    drop: bool,
    cache: Any,  # noqa: ANN401 - transformers Cache
) -> Tensor:
    """Logits after the last of `tokens`, which stand at positions start, start+1, ...; (V,)."""
    h_1TD = base.embed(torch.tensor([list(tokens)], device=base.device))
    positions_T = torch.arange(start, start + len(tokens), device=base.device)
    rotary = base.rotary(h_1TD, positions_T)
    rows = Rows(active=None, drop_B11=torch.tensor([[[drop]]], device=base.device))
    for index, layer in enumerate(base.layers):
        h_1TD = layer_forward(
            layer,
            h_1TD,
            position_embeddings=rotary,
            npt=npt.get(index),
            rows=rows,
            cache=cache,
        )
    return base.head(base.norm(h_1TD[0, -1]))


def _end_tokens(base: BaseModel) -> set[int]:
    end = base.model.generation_config.eos_token_id
    return set(end) if isinstance(end, list) else {end}
