"""The table of the speed benchmark: times beside the reference's and the floor's, and the goals."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    import one_b


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Medians.

    Attributes:
        cold: seconds of whole processes, by name; peak_gb: their peak memory.
        warm: what sides.py gives.
    """

    cold: dict[str, float]
    peak_gb: dict[str, float]
    warm: dict[str, Any]

    def as_json(self) -> str:
        """Give all numbers."""
        return json.dumps(asdict(self), indent=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line.

    Attributes:
        reference, ours, floor: seconds; None: there is none to compare with.
        faster: goal for reference : ours, at least; above: goal for ours : floor, at most.
        over: what stands above the floor, where that is not all of `ours`.
    """

    what: str
    ours: float
    reference: float | None = None
    floor: float | None = None
    over: float | None = None
    faster: float | None = None
    above: float | None = None

    @property
    def gain(self) -> float | None:
        """Reference : ours."""
        return self.reference / self.ours if self.reference else None

    @property
    def excess(self) -> float | None:
        """Ours : floor."""
        return (self.over or self.ours) / self.floor if self.floor else None


def rows(results: Results) -> Iterator[Row]:
    """Give the lines, those with goals first in each profile."""
    cold, warm = results.cold, results.warm
    for profile, fresh, again in (("quick", 4.0, None), ("full", 12.0, None)):
        reference = cold.get(f"reference {profile}")
        if reference is None:
            continue
        first, once_more = f"{profile}, cold", f"{profile}, again"
        yield Row(what=first, ours=cold[first], reference=reference, faster=fresh)
        yield Row(
            what=f"{profile}, cold, base's answers kept",
            ours=cold[once_more],
            reference=reference,
            faster=again,
        )
    yield from _quick_rows(warm, cold["reference quick"])
    if "full" in warm:
        yield from _full_rows(warm, cold["reference full"])


def _quick_rows(warm: dict[str, Any], reference: float) -> Iterator[Row]:
    for name, rule in (("quick", "both rules"), ("quick_keep", "one rule")):
        found, default = warm[name], name == "quick"
        yield Row(
            what=f"quick, warm, {rule}",
            ours=found["read"] + found["measure"],
            reference=reference,
            floor=found["floor"],
            over=found["measure"],
            faster=30 if default else None,
            above=1.5 if default else None,
        )


def _full_rows(warm: dict[str, Any], reference: float) -> Iterator[Row]:
    for name, draft in (("full", "accepted"), ("full_poor", "refused")):
        found, good = warm[name], name == "full"
        yield Row(
            what=f"full, warm, draft {draft}",
            ours=found["read"] + found["measure"],
            reference=reference,
            floor=found["floor"],
            over=found["sweep"],
            faster=40 if good else None,
            above=2 if good else None,
        )


def growth(warm: dict[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """Give the full diagnostics of more and more NPT layers, by their number."""
    return sorted((int(count), found) for count, found in warm.get("grown", {}).items())


def goals_missed(results: Results) -> list[str]:
    """Name the goals that are not reached."""
    missed = []
    for row in rows(results):
        if row.faster and (row.gain or 0) < row.faster:
            missed.append(f"{row.what}: reference : ours {row.gain:.1f}, wanted {row.faster:g}")
        if row.above and (row.excess or 0) > row.above:
            missed.append(f"{row.what}: ours : floor {row.excess:.2f}, wanted {row.above:g}")
    peak = results.peak_gb
    share = peak["quick, cold"] / peak["reference quick"]
    if share > 0.5:
        missed.append(f"peak memory, quick: ours : reference {share:.2f}, wanted 0.5")
    grown = growth(results.warm)
    for count, found in grown[1:]:
        first, begin = grown[0]
        times = found["sweep"] / begin["sweep"]
        if times > count / first:
            missed.append(f"{count} NPT layers: {times:.1f} times the sweep of {first}")
    return missed


def print_table(results: Results, shape: one_b.Shape, asked: argparse.Namespace) -> None:
    """Print everything."""
    print(
        f"{shape.name}: hidden {shape.hidden}, {shape.layers} layers, vocabulary "
        f"{shape.vocabulary:,}, NPT layers {list(shape.npt_layers)},\nR {shape.rank}, "
        f"K {shape.num_ranks}, dual; {asked.dtype}, {asked.device}, {asked.threads} threads; "
        f"medians of {asked.rounds} processes (full: {asked.full_rounds}), "
        f"{asked.warm_rounds} warm\n"
        f"load average {os.getloadavg()[0]:.1f}\n"
    )
    print(f"{'':33}{'reference':>10}{'ours':>9}{'ref:ours':>10}{'floor':>9}{'ours:floor':>12}")
    for row in rows(results):
        print(
            f"{row.what:33}{_seconds(row.reference):>10}{_seconds(row.ours):>9}"
            f"{_ratio(row.gain):>10}{_seconds(row.floor):>9}{_ratio(row.excess, 2):>12}"
        )
    print("ours: reading the file included; ours:floor: without it, of full the sweep alone\n")
    _print_memory(results)
    _print_parts(results)
    _print_growth(results)


def _print_memory(results: Results) -> None:
    for profile in ("quick", "full"):
        reference = results.peak_gb.get(f"reference {profile}")
        if reference is not None:
            ours = results.peak_gb[f"{profile}, cold"]
            print(
                f"peak memory, {profile}: reference {reference:.2f} GB, ours {ours:.2f} GB, "
                f"ours:reference {ours / reference:.2f}"
            )


def _print_parts(results: Results) -> None:
    print()
    for name, found in results.warm.items():
        if not isinstance(found, dict) or "floor" not in found:
            continue
        generation = found.get("generation")
        more = "" if generation is None else f", generation {_seconds(generation)}"
        if "similarity" in found:
            more += f" (similarity {found['similarity']:.2f})"
        print(
            f"{name}: reading {_seconds(found['read'])}, "
            f"sweep {_seconds(found.get('sweep', found['measure']))}{more}; floor: "
            f"{found['floor_gb']:.2f} GB of weights, {found['floor_gflop']:.0f} GFLOP"
        )


def _print_growth(results: Results) -> None:
    grown = growth(results.warm)
    if grown:
        print("\nNPT layers   sweep   times   layers times   per extra layer   ours:floor")
    for place, (count, found) in enumerate(grown):
        first, begin = grown[0]
        before, earlier = grown[max(0, place - 1)]
        extra = (found["sweep"] - earlier["sweep"]) / (count - before) if place else None
        print(
            f"{count:10}{_seconds(found['sweep']):>8}{found['sweep'] / begin['sweep']:8.2f}"
            f"{count / first:15.2f}{_seconds(extra):>18}{found['sweep'] / found['floor']:13.2f}"
        )


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return (
        f"{value:.1f} s"
        if value >= 10
        else f"{value:.2f} s"
        if value >= 1
        else f"{value * 1e3:.0f} ms"
    )


def _ratio(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
