"""The floor of a sweep: the bare products of each needed weight, once, with the same tokens.

What tokens those are is planned as the sweep does it (diagnostics/plan.py: each state once).
Outputs are written to memory that is there already; attention, norms, sums and the comparison of
the logits are left out.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from nptwatch.diagnostics.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from nptwatch.diagnostics.plan import Plan
    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.modulation import NptLayer


@dataclass(slots=True)
class Asked:
    """What a diagnostic asked of `sweep`, once it has run."""

    base: BaseModel | None = None
    npt: dict[int, NptLayer] | None = None
    lengths: tuple[int, ...] = ()
    plan: Plan | None = None


@contextmanager
def overheard(module: Any) -> Iterator[Asked]:
    """Hear what a diagnostic's module asks of `sweep`, which answers as ever."""
    asked, answer = Asked(), module.sweep

    def sweep(base: Any, npt: Any, probes: Any, reference: Any, variants: Any, **more: Any) -> Any:
        asked.base, asked.npt, asked.lengths = base, dict(npt), probes.lengths
        asked.plan = make_plan(
            variants,
            num_layers=base.shape.num_layers,
            num_prompts=len(probes.lengths),
            probe_layers=sorted(npt),
            probe_prompts=more.get("local_on", ()),
        )
        return answer(base, npt, probes, reference, variants, **more)

    with mock.patch.object(module, "sweep", sweep):
        yield asked


class Floor:
    """The products of a sweep.

    Attributes:
        products: (weight, tokens); weights as (in, out).
    """

    def __init__(self, asked: Asked) -> None:
        """Take what was asked of a sweep."""
        base, plan = asked.base, asked.plan
        assert base is not None
        assert plan is not None
        self.products: list[tuple[Tensor, int]] = []
        for index, layer_plan in enumerate(plan.layers, plan.start):
            tokens = [asked.lengths[work.prompt] for work in layer_plan.work]
            active = [n for n, work in zip(tokens, layer_plan.work, strict=True) if work.active]
            for module in base.layers[index].modules():
                if isinstance(module, torch.nn.Linear):
                    self.products.append((module.weight.T, sum(tokens)))
            if active:
                assert asked.npt is not None
                self._modulated(asked.npt[index], sum(active))
        ends = dict.fromkeys(chain(*plan.finals))
        total = sum(asked.lengths[state.prompt] for state in ends)
        self.products.append((base.model.lm_head.weight.T, total))

    def _modulated(self, npt: NptLayer, tokens: int) -> None:
        for part in (npt.gate, npt.up, npt.down):
            if part is not None:
                weights = (part.down_DJ, part.a_JX.T, part.b_JY)
                self.products += [(weight, tokens) for weight in weights]

    @property
    def weight_bytes(self) -> int:
        """Of all weights together."""
        return sum(weight.numel() * weight.element_size() for weight, _ in self.products)

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return sum(2 * weight.numel() * tokens for weight, tokens in self.products)

    @torch.inference_mode()
    def work(self) -> Callable[[], None]:
        """Give a function that does the products."""
        ready = []
        for weight, tokens in self.products:
            like: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
            x = torch.randn(tokens, weight.shape[0], **like)
            ready.append((x, weight, torch.empty(tokens, weight.shape[1], **like)))

        @torch.inference_mode()
        def products() -> None:
            for x, weight, out in ready:
                torch.mm(x, weight, out=out)

        return products
