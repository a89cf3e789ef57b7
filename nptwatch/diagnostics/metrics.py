"""Two sets of logits -> numbers. Definitions: docs/diagnostics.md.

Legend: T tokens of one prompt, V vocabulary, D hidden_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nptwatch.diagnostics.results import Score

SLICE_ELEMENTS = 2**18
"""Logits are compared a MiB at a time: temporaries stay small and in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSide:
    """The base on one prompt, with all that a comparison needs of it, computed once.

    Attributes:
        norm: length of the flattened logits.
        variance: of the logits, over positions and vocabulary.
        nll_T: negative log-likelihood of each next token, (T-1,).
    """

    logits_TV: Tensor
    logp_TV: Tensor
    p_TV: Tensor
    top1_T: Tensor
    next_T1: Tensor
    nll_T: Tensor
    hidden_TD: Tensor
    norm: float
    variance: float


def base_side(logits_TV: Tensor, hidden_TD: Tensor, ids_T: Tensor) -> BaseSide:
    """Prepare one prompt of the base.

    Args:
        logits_TV: float32.
        hidden_TD: final hidden states, after the last norm.
        ids_T: the prompt's tokens.
    """
    logp_TV = logits_TV.log_softmax(-1)
    next_T1 = ids_T[1:, None]
    return BaseSide(
        logits_TV=logits_TV,
        logp_TV=logp_TV,
        p_TV=logp_TV.exp(),
        top1_T=logits_TV.argmax(-1),
        next_T1=next_T1,
        nll_T=-logp_TV[:-1].gather(-1, next_T1)[:, 0],
        hidden_TD=hidden_TD.float(),
        norm=logits_TV.norm().item(),
        variance=logits_TV.var(correction=0).item(),
    )


def score_prompt(base: BaseSide, logits_TV: Tensor, hidden_TD: Tensor) -> Score:
    """Compare the NPT's float32 logits and final hidden states with the base's on one prompt."""
    tokens, vocabulary = logits_TV.shape
    sums = _Sums()
    kl, agree, nll = [], [], []
    step = min(tokens, max(1, SLICE_ELEMENTS // vocabulary))
    scratch_SV = torch.empty_like(logits_TV[:step])
    for start in range(0, tokens, step):
        rows = slice(start, start + step)
        npt_SV, base_SV = logits_TV[rows], base.logits_TV[rows]
        spare_SV = scratch_SV[: len(npt_SV)]
        torch.sub(npt_SV, base_SV, out=spare_SV)
        sums.add(npt_SV.flatten(), base_SV.flatten(), spare_SV.flatten())
        top_S1 = npt_SV.gather(-1, base.top1_T[rows, None])  # amax is far cheaper than argmax
        agree.append(top_S1[:, 0] == npt_SV.amax(-1))
        logp_SV = npt_SV.log_softmax(-1)
        next_S1 = base.next_T1[rows]
        nll.append(-logp_SV[: len(next_S1)].gather(-1, next_S1)[:, 0])
        torch.sub(base.logp_TV[rows], logp_SV, out=spare_SV)
        kl.append(spare_SV.mul_(base.p_TV[rows]).sum(-1))
    kl_T, mse = torch.cat(kl), sums.squares / logits_TV.numel()
    return Score(
        mse=mse,
        cosine=sums.product / max(math.sqrt(sums.length) * base.norm, 1e-8),
        kl=kl_T.mean().item(),
        kl_last=kl_T[-1].item(),
        top1_agreement=torch.cat(agree).float().mean().item(),
        relative_mse=mse / base.variance if base.variance else math.nan,
        perplexity_ratio=torch.exp((torch.cat(nll) - base.nll_T).double().mean()).item(),
        hidden_mse=functional.mse_loss(hidden_TD.float(), base.hidden_TD).item(),
    )


def local_error(npt_TD: Tensor, base_TD: Tensor, before_TD: Tensor) -> tuple[float, float]:
    """Compare one layer's output with the base layer's, both fed `before_TD`.

    Returns:
        MSE, and MSE over the mean square of what the base layer adds (NaN where it adds nothing).
    """
    mse = functional.mse_loss(npt_TD.float(), base_TD.float()).item()
    update = functional.mse_loss(base_TD.float(), before_TD.float()).item()
    return mse, mse / update if update else math.nan


@dataclass(slots=True)
class _Sums:
    """Running sums over slices of two flattened logit tensors."""

    squares: float = 0.0  # of the differences
    product: float = 0.0
    length: float = 0.0  # squared, of the first

    def add(self, npt: Tensor, base: Tensor, difference: Tensor) -> None:
        """Take in one slice of each and of their difference."""
        self.squares += torch.dot(difference, difference).item()
        self.product += torch.dot(npt, base).item()
        self.length += torch.dot(npt, npt).item()
