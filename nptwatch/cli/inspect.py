"""`nptwatch inspect`: what a checkpoint is, without loading its base."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nptwatch.cli.targets import base_named_by, weights_below
from nptwatch.diagnostics.report import layers_report
from nptwatch.errors import CheckpointError
from nptwatch.npt.files import check_crc, fingerprint, has_crcs, step_of
from nptwatch.npt.layout import infer_layout
from nptwatch.settings import load_settings

if TYPE_CHECKING:
    from nptwatch.settings import Settings

Facts = dict[str, Any]  # Any: free JSON


def inspect_(
    path: Annotated[Path, typer.Argument(help="Checkpoint file, or a folder that holds some.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Show a checkpoint's structure: layers, kind, rank, components, dtypes, step, CRCs.

    Exit code 3 if it cannot be loaded; the error lists every fault.

    Example: nptwatch inspect experiments/run/checkpoints/checkpoint-8000
    """
    settings = load_settings(config, env=os.environ)
    facts = [_facts(file, settings) for file in weights_below(path, settings.watch)]
    if as_json:
        print(json.dumps(facts if len(facts) > 1 else facts[0], indent=2))
    else:
        print("\n\n".join(_text(fact) for fact in facts))
    faults = [fact["error"] for fact in facts if fact["error"]]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        raise typer.Exit(CheckpointError.exit_code)


def _facts(weights: Path, settings: Settings) -> Facts:
    """What the file says from outside, then what its tensors say, as far as it can be read."""
    facts: Facts = {
        "checkpoint": str(weights),
        "size_bytes": weights.stat().st_size,
        "fingerprint": None,
        "crc": _crc_state(weights),
        "step": step_of(weights),
        "base_model": base_named_by(weights),
        "error": None,
    }
    try:
        facts["fingerprint"] = fingerprint(weights)
        facts |= _structure(weights, settings)
    except CheckpointError as exc:
        facts["error"] = str(exc)
    return facts


def _structure(weights: Path, settings: Settings) -> Facts:
    from nptwatch.npt.reader import read_checkpoint

    max_bytes = settings.diagnostic.max_checkpoint_bytes
    checkpoint = read_checkpoint(weights, max_bytes=max_bytes)
    layout = infer_layout(checkpoint.shapes)
    return {
        "hidden_size": layout.hidden_size,
        "intermediate_size": layout.intermediate_size,
        "num_parameters": layout.num_parameters,
        "dtypes": checkpoint.dtypes,
        "first_non_finite": checkpoint.first_non_finite(),
        "layers": layers_report(layout),
    }


def _crc_state(weights: Path) -> str:
    """In one word: ok, none or bad; the error says what is bad."""
    try:
        check_crc(weights)
        return "ok" if has_crcs(weights) else "none"
    except CheckpointError:
        return "bad"


def _text(facts: Facts) -> str:
    rows = [
        ("Checkpoint", facts["checkpoint"]),
        ("Size", f"{facts['size_bytes']:,} bytes"),
        ("Fingerprint", (facts["fingerprint"] or "unknown")[:28]),
        ("CRC", facts["crc"]),
        ("Step", "unknown" if facts["step"] is None else facts["step"]),
        ("Base Model", facts["base_model"] or "not named"),
    ]
    if facts["error"] is None:
        bad = facts["first_non_finite"]
        fits = f"of hidden {facts['hidden_size']}, MLP {facts['intermediate_size']}"
        rows += [
            ("Fits a Base", fits),
            ("Parameters", f"{facts['num_parameters']:,} ({', '.join(facts['dtypes'])})"),
            ("Values", "all finite" if bad is None else f"NaN or infinity, first in {bad}"),
        ]
        rows += [
            (f"Layer {la['layer']}", f"{la['kind']}, R={la['rank']}, K={la['num_ranks']}")
            for la in facts["layers"]
        ]
    return "\n".join(f"{label + ':':<13} {value}" for label, value in rows)
