"""The floor of a sweep: the bare products of each needed weight, once, with the same tokens.

What tokens those are is planned as the sweep does it (diagnostics/plan.py: each state once).
Outputs are written to memory that is there already; attention, norms, sums and the comparison of
the logits are left out.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from nptwatch.diagnostics import full, quick
from nptwatch.diagnostics.plan import make_plan
from nptwatch.diagnostics.sweep import sweep as answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from nptwatch.diagnostics.plan import Plan
    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.modulation import NptLayer

SLICES = (2048, 8192)
"""Outputs of a part of a product: a library may be far from its best on a whole vocabulary."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of one sweep."""

    base: BaseModel
    npt: Mapping[int, NptLayer]
    lengths: tuple[int, ...]
    plan: Plan


@contextmanager
def overheard() -> Iterator[list[Asked]]:
    """Hear what the diagnostics ask of `sweep`, which answers as ever."""
    asked: list[Asked] = []

    def sweep(base: Any, npt: Any, probes: Any, reference: Any, variants: Any, **more: Any) -> Any:
        plan = make_plan(
            variants,
            num_layers=base.shape.num_layers,
            num_prompts=len(probes.lengths),
            probe_layers=sorted(npt),
            probe_prompts=more.get("local_on", ()),
        )
        asked.append(Asked(base, npt, probes.lengths, plan))
        return answer(base, npt, probes, reference, variants, **more)

    with mock.patch.object(quick, "sweep", sweep), mock.patch.object(full, "sweep", sweep):
        yield asked


class Floor:
    """The products of a diagnostic's sweeps, the tokens of all of them together.

    Attributes:
        products: (weight, tokens); weights as (in, out).
    """

    def __init__(self, sweeps: Sequence[Asked]) -> None:
        """Take what was asked of the sweeps of one checkpoint."""
        base, npt = sweeps[0].base, sweeps[0].npt
        self.products: list[tuple[Tensor, int]] = []
        for index in range(min(asked.plan.start for asked in sweeps), base.shape.num_layers):
            tokens, active = _tokens(sweeps, index)
            for module in base.layers[index].modules():
                if isinstance(module, torch.nn.Linear):
                    self.products.append((module.weight.T, tokens))
            if active:
                self._modulated(npt[index], active)
        ends = sum(_ends(asked) for asked in sweeps)
        self.products.append((base.model.lm_head.weight.T, ends))

    def _modulated(self, npt: NptLayer, tokens: int) -> None:
        for part in (npt.gate, npt.up, npt.down):
            if part is not None:
                for each in part.components:
                    weights = (each.down_DR, each.a_RX.T, each.b_RY)
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
        """Give a function that does the products, each in the way that is fastest here."""
        ready = [piece for weight, tokens in self.products for piece in _fastest(weight, tokens)]

        @torch.inference_mode()
        def products() -> None:
            for x, weight, out in ready:
                torch.mm(x, weight, out=out)

        return products


def _fastest(weight: Tensor, tokens: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Cut a product into slices of its outputs, or leave it whole: what takes least here."""
    like: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
    x = torch.randn(tokens, weight.shape[0], **like)
    out = torch.empty(tokens, weight.shape[1], **like)
    ways = [
        [(x, *pair) for pair in zip(weight.split(step, 1), out.split(step, 1), strict=True)]
        for step in (weight.shape[1], *(each for each in SLICES if each < weight.shape[1]))
    ]
    if weight.device.type != "cpu":
        return ways[0]
    return min(ways, key=_seconds)


def _seconds(pieces: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Time a product, the best of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for x, weight, out in pieces:
            torch.mm(x, weight, out=out)
        times.append(time.perf_counter() - started)
    return min(times)


def _tokens(sweeps: Sequence[Asked], index: int) -> tuple[int, int]:
    """Count what goes through a layer, and what of it takes the NPT path."""
    work = [
        (asked.lengths[work.prompt], work.active)
        for asked in sweeps
        if index >= asked.plan.start
        for work in asked.plan.layers[index - asked.plan.start].work
    ]
    return sum(n for n, _ in work), sum(n for n, active in work if active)


def _ends(asked: Asked) -> int:
    """Count the tokens whose logits are wanted."""
    states = dict.fromkeys(chain(*asked.plan.finals))
    return sum(asked.lengths[state.prompt] for state in states)
