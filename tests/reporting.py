"""Reports for comparison tests, with the keys of docs/diagnostics.md."""

from __future__ import annotations

from typing import Any

TESTS = (
    "Basic Functionality",
    "NPT vs Standard Mode",
    "Per-Layer Performance",
    "Generation Quality",
    "Progressive Layer Activation",
)


def quick(mse: float | None = 0.4, **changes: Any) -> dict[str, Any]:  # Any: free JSON
    """Give a quick report of one checkpoint."""
    return {
        "profile": "quick",
        "checkpoint": "/exp/a/checkpoints/checkpoint-100/npt_weights.pt",
        "step": 100,
        "diagnostic": {
            "status": "success",
            "num_npt_layers": 2,
            "model_info": {"dtype": "float32", "base_model": "llama"},
        },
        "accuracy": {"avg_mse": mse, "avg_cosine_similarity": 0.9, "kl": 0.2, "hidden_mse": 0.01},
        "progress": {"progress_estimate": 0.7},
        "grade": "FAIR",
        "residual": "keep",
        "local_errors": [{"layer": 2, "mse": 0.01, "relative": 0.5}],
        "findings": [],
        "timestamp": "2026-11-20T12:00:00+00:00",
        **changes,
    }


def full(mse: float = 0.4, score: float = 0.6, **changes: Any) -> dict[str, Any]:  # Any: free JSON
    """Give a full report: each test has the score, each layer alone a tenth of the MSE."""
    details = {
        "Per-Layer Performance": {
            "layer_results": {str(n): {"mse_loss": mse / 10} for n in (2, 10)},
        },
        "Generation Quality": {"avg_coherence": 0.9, "avg_similarity": score},
        "Progressive Layer Activation": {"final_mse": mse},
    }
    return {
        **quick(mse),
        "profile": "full",
        "summary": {"overall_status": "NOT_READY", "avg_score": score},
        "detailed_results": [
            {
                "test_name": name,
                "status": "WARNING",
                "score": score,
                "details": details.get(name, {}),
            }
            for name in TESTS
        ],
        **changes,
    }
