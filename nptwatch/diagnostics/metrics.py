"""Two sets of logits -> numbers. Definitions: DIAGNOSTICS.md.

Legend: T tokens of one prompt, V vocabulary, D hidden_size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nptwatch.diagnostics.results import Score


def score_prompt(
    npt_TV: Tensor, base_TV: Tensor, ids_T: Tensor, npt_hidden_TD: Tensor, base_hidden_TD: Tensor
) -> Score:
    """Compare NPT with base on one prompt.

    Args:
        npt_TV: float32 logits of the NPT; base_TV: of the base.
        ids_T: the prompt's tokens.
        npt_hidden_TD: final hidden states after the last norm; base_hidden_TD: of the base.
    """
    mse = functional.mse_loss(npt_TV, base_TV)
    npt_logp_TV, base_logp_TV = npt_TV.log_softmax(-1), base_TV.log_softmax(-1)
    kl_T = (base_logp_TV.exp() * (base_logp_TV - npt_logp_TV)).sum(-1)
    return Score(
        mse=mse.item(),
        cosine=functional.cosine_similarity(npt_TV.flatten(), base_TV.flatten(), dim=0).item(),
        kl=kl_T.mean().item(),
        kl_last=kl_T[-1].item(),
        top1_agreement=(npt_TV.argmax(-1) == base_TV.argmax(-1)).float().mean().item(),
        relative_mse=(mse / base_TV.var(correction=0)).item(),
        perplexity_ratio=_perplexity_ratio(npt_logp_TV, base_logp_TV, ids_T),
        hidden_mse=functional.mse_loss(npt_hidden_TD.float(), base_hidden_TD.float()).item(),
    )


def _perplexity_ratio(npt_logp_TV: Tensor, base_logp_TV: Tensor, ids_T: Tensor) -> float:
    """exp(mean NLL under NPT - mean NLL under base); NaN for a prompt of one token."""
    next_T1 = ids_T[1:, None].to(npt_logp_TV.device)
    npt = npt_logp_TV[:-1].gather(-1, next_T1)
    base = base_logp_TV[:-1].gather(-1, next_T1)
    return torch.exp((base - npt).double().mean()).item()
