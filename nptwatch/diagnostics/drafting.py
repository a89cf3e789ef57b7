"""Continuations with the base's own as a draft: many tokens are verified in one sweep.

Legend: N tokens of all drafts together, T tokens of one, V vocabulary.

A good checkpoint continues as the base does. So the base's continuations, which are known, are sent
through the checkpoint whole, as so many more prompts of a sweep: from the first NPT layer on, as
below it the states are the base's, which are known too. At each place the token is drawn as step by
step decoding would; the first that is not the draft's ends what is known of that draw, and the rest
is decoded step by step. In float32 the tokens are those of decoding alone. In half precision sums
are rounded by how the work is laid out, so that a near tie may fall otherwise; the base's own
tokens are therefore settled by the same sweep: a model that computes what the base does says what
the base says, in every precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nptwatch.diagnostics.generation import generate
from nptwatch.diagnostics.plan import Variant, make_plan
from nptwatch.diagnostics.probes import pack
from nptwatch.diagnostics.reference import LOGITS_BYTES, References
from nptwatch.diagnostics.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nptwatch.diagnostics.generation import Continuations, Draw
    from nptwatch.diagnostics.reference import Reference
    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.modulation import NptLayer


@torch.inference_mode()
def generate_from_drafts(
    references: References,
    npt: Mapping[int, NptLayer],
    draws: Sequence[Draw],
    drafts: Continuations,
    *,
    drop: bool,
) -> list[tuple[int, ...]]:
    """Draw all continuations; a sweep for what the base would say, then step by step.

    Args:
        npt: active layers, by index; at least one.
        drafts: the base's continuations; seed and length are theirs.
        drop: the residual rule.

    Returns:
        Each draw's new tokens, the end token included where it came.

    Raises:
        FloatingPointError: NaN or infinity in the logits.
    """
    base = references.base
    verifier = _Verifier(references, npt, drop=drop)
    verified = verifier.verify(draws, drafts.of(draws), drafts.seed)
    return generate(
        base,
        npt,
        draws,
        drop=drop,
        seed=drafts.seed,
        max_new_tokens=drafts.max_new_tokens,
        begun=verified,
    )


@torch.inference_mode()
def settle(
    base: BaseModel,
    draws: Sequence[Draw],
    decoded: Sequence[tuple[int, ...]],
    *,
    seed: int,
    max_new_tokens: int,
    logits_bytes: int = LOGITS_BYTES,
    batch_tokens: int = 0,
) -> list[tuple[int, ...]]:
    """Give the base's continuations as a sweep draws them, from those decoded step by step.

    What a sweep draws otherwise is decoded anew from there, until it draws all of them again: at
    once in float32, after a round or two in half precision. `max_new_tokens` is only a bound.
    """
    tokens = list(decoded)
    for _ in range(max_new_tokens):
        references = References(base=base, logits_bytes=logits_bytes, batch_tokens=batch_tokens)
        verified = _Verifier(references, {}, drop=False).verify(draws, tokens, seed)
        if [tuple(each) for each in verified] == tokens:
            break
        tokens = generate(base, {}, draws, seed=seed, max_new_tokens=max_new_tokens, begun=verified)
    return tokens


class _Verifier:
    """Sends drafts through a checkpoint, or the base, and draws at each of their places."""

    def __init__(self, references: References, npt: Mapping[int, NptLayer], *, drop: bool) -> None:
        self._references, self._npt, self._drop = references, npt, drop

    def verify(
        self, draws: Sequence[Draw], drafts: Sequence[Sequence[int]], seed: int
    ) -> list[list[int]]:
        """Give the tokens of each draw up to, and with, the first that is not its draft's."""
        base = self._references.base
        prompts = [base.tokenizer(draw.prompt)["input_ids"] for draw in draws]
        # nothing is drawn after the last token of a full draft, nor after an end
        texts = [(*ids, *draft[:-1]) for ids, draft in zip(prompts, drafts, strict=True)]
        distinct = list(dict.fromkeys(texts))
        starts = [
            min(len(ids) - 1 for ids, each in zip(prompts, texts, strict=True) if each == text)
            for text in distinct
        ]
        reference = self._references.of(pack(base, distinct))
        # the head, as large as several layers, only where a token is drawn
        normed = [
            normed_TD[start:]
            for start, normed_TD in zip(starts, self._normed(reference), strict=True)
        ]
        found: dict[int, list[int]] = {}
        for part in reference.in_groups(range(len(distinct))):
            pieces = zip(distinct[part], starts[part], self._logits(normed[part]), strict=True)
            for text, start, logits_TV in pieces:
                for number, draw in enumerate(draws):
                    if texts[number] == text:
                        drawn_TV = logits_TV[len(prompts[number]) - 1 - start :]
                        found[number] = _accepted(draw, drafts[number], drawn_TV, seed)
        return [found[number] for number in range(len(draws))]

    def _normed(self, reference: Reference) -> list[Tensor]:
        """Final states of each text, (T,D); of the base they are known."""
        base, probes = self._references.base, reference.probes
        if not self._npt:
            return [reference.normed_ND[probes.rows(n)] for n in range(len(probes.lengths))]
        plan = make_plan(
            [Variant(active=frozenset(self._npt), drop=self._drop)],
            num_layers=base.shape.num_layers,
            num_prompts=len(probes.lengths),
        )
        walk = Walk(base, self._npt, reference)
        walk.run(plan)
        return [base.norm(walk.stream(state)) for state in plan.finals[0]]

    def _logits(self, normed: Sequence[Tensor]) -> Sequence[Tensor]:
        """Give the logits of some texts, (T,V) each."""
        lengths = [len(normed_TD) for normed_TD in normed]
        logits: Sequence[Tensor] = self._references.base.head(torch.cat(list(normed))).split(
            lengths
        )
        return logits


def _accepted(draw: Draw, draft: Sequence[int], logits_TV: Tensor, seed: int) -> list[int]:
    """Draw along a draft, until the draw differs.

    Args:
        logits_TV: at the places where the draft's tokens were drawn, so that T = len(draft).
    """
    tokens: list[int] = []
    for position, (drafted, logits_V) in enumerate(zip(draft, logits_TV, strict=True)):
        tokens.append(draw.choose(logits_V, seed=seed, position=position))
        if tokens[-1] != drafted:
            break
    return tokens
