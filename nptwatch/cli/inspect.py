"""`nptwatch inspect`: what a checkpoint is, without loading its base."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nptwatch.diagnostics.report import layers_report
from nptwatch.errors import IncompleteCheckpointError, UnsafeCheckpointError
from nptwatch.npt.files import base_model_of, check_crc, step_of
from nptwatch.npt.layout import infer_layout
from nptwatch.npt.locate import run_of, weights_below
from nptwatch.settings import load_settings

if TYPE_CHECKING:
    from nptwatch.settings import Settings

BYTES_PER_GIB = 1024**3


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
    facts = [_facts(file, settings) for file in weights_below(path, settings.watch.weights)]
    if as_json:
        print(json.dumps(facts if len(facts) > 1 else facts[0], indent=2))
        return
    print("\n\n".join(_text(fact) for fact in facts))


def _facts(weights: Path, settings: Settings) -> dict[str, Any]:
    from nptwatch.npt.reader import read_checkpoint

    crc = _crc_state(weights)
    max_bytes = int(settings.diagnostic.max_checkpoint_gib * BYTES_PER_GIB)
    checkpoint = read_checkpoint(weights, max_bytes=max_bytes)
    layout = infer_layout(checkpoint.shapes)
    return {
        "checkpoint": str(weights),
        "size_bytes": checkpoint.size_bytes,
        "fingerprint": checkpoint.fingerprint,
        "crc": crc,
        "step": step_of(weights),
        "base_model": base_model_of(weights, run_of(weights)),
        "hidden_size": layout.hidden_size,
        "intermediate_size": layout.intermediate_size,
        "num_parameters": layout.num_parameters,
        "dtypes": checkpoint.dtypes,
        "first_non_finite": checkpoint.first_non_finite(),
        "layers": layers_report(layout),
    }


def _crc_state(weights: Path) -> str:
    if weights.suffix == ".safetensors":
        return "none (safetensors has no CRCs)"
    try:
        check_crc(weights)
    except (IncompleteCheckpointError, UnsafeCheckpointError) as exc:
        return f"bad: {exc}"
    return "ok"


def _text(facts: dict[str, Any]) -> str:
    bad = facts["first_non_finite"]
    rows = [
        ("Checkpoint", facts["checkpoint"]),
        ("Size", f"{facts['size_bytes']:,} bytes"),
        ("Fingerprint", facts["fingerprint"][:28]),
        ("CRC", facts["crc"]),
        ("Step", "unknown" if facts["step"] is None else facts["step"]),
        ("Base Model", facts["base_model"] or "not named"),
        ("Fits a Base", f"of hidden {facts['hidden_size']}, MLP {facts['intermediate_size']}"),
        ("Parameters", f"{facts['num_parameters']:,} ({', '.join(facts['dtypes'])})"),
        ("Values", "all finite" if bad is None else f"NaN or infinity, first in {bad}"),
    ]
    lines = [f"{label + ':':<13} {value}" for label, value in rows]
    lines += [
        f"{'Layer ' + str(la['layer']) + ':':<13} {la['kind']}, R={la['rank']}, K={la['num_ranks']}"
        for la in facts["layers"]
    ]
    return "\n".join(lines)
