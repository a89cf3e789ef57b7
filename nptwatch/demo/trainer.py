"""Real NPT training: distils the demo's base into itself, and saves as the NPT trainers do.

    python -m nptwatch.demo.trainer --base DIR --run DIR --steps N --seed N

It knows nothing of the daemon. Files, their names and their order are those that NPT trainers
leave; saves are plain `torch.save`s to the final names, so that a reader may well meet half a file.
The loss is the MSE of the final hidden states, after the last norm (the diagnostic's is that of the
logits).

Legend: B rows, T tokens, D hidden_size.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from nptwatch.demo.corpus import TEXT
from nptwatch.npt.base import BaseModel, load_base
from nptwatch.npt.layout import Kind, LayerLayout, Layout
from nptwatch.npt.modulation import NptLayer, layer_forward, npt_layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

SHORTEST, LONGEST = 6, 33
"""Tokens of a training row, about the lengths of a probe."""
RANDOM_SHARE = 0.25
"""Rows of random tokens: the function is to be learnt, not the text."""
VALIDATION_ROWS = 64
FIRST_SAVES = 40, 20
"""The first saves, as fractions of all steps: loss falls fastest at first."""
SAVES = 10
"""Then one after each tenth; until LAST_DENSE_SAVE twice as often."""
LAST_DENSE_SAVE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is set about a training run; its fields are those of a run's config.json."""

    model_name: str
    output_dir: str
    max_steps: int
    warmup_steps: int
    seed: int
    npt_layers: tuple[int, ...] = (2, 3)
    np_rank: int = 64
    num_ranks: int = 2
    np_init_scale: float = 0.15
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    logging_steps: int = 10
    gradient_clip_value: float = 1.0


def save_steps(max_steps: int) -> tuple[int, ...]:
    """Give the steps after which a checkpoint is saved, ascending, the last step among them."""
    dense = range(1, int(SAVES * 2 * LAST_DENSE_SAVE))
    steps = {max_steps // part for part in FIRST_SAVES}
    steps |= {max_steps * n // (SAVES * 2) for n in dense}
    steps |= {max_steps * n // SAVES for n in range(1, SAVES + 1)}
    return tuple(sorted(step for step in steps if step > 0))


class Batches:
    """Training rows: windows of the text and random tokens, each row behind one BOS."""

    def __init__(self, base: BaseModel, *, batch_size: int, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._tokens = torch.tensor(base.tokenizer(TEXT, add_special_tokens=False)["input_ids"])
        self._vocabulary = len(base.tokenizer)
        self._bos = base.tokenizer.bos_token_id
        self._batch_size = batch_size

    def draw(self) -> Tensor:
        """Return one batch of token ids, (B,T), T drawn too."""
        return self.rows(self._batch_size, self._number(SHORTEST, LONGEST + 1))

    def rows(self, count: int, length: int) -> Tensor:
        """Return token ids, (count, length)."""
        drawn = int(count * RANDOM_SHARE)
        random = torch.randint(
            2, self._vocabulary, (drawn, length - 1), generator=self._generator
        )  # 0 and 1 are BOS and EOS
        last = len(self._tokens) - length
        starts = torch.randint(0, last, (count - drawn, 1), generator=self._generator)
        windows = self._tokens[starts + torch.arange(length - 1)]
        bos = torch.full((count, 1), self._bos)
        return torch.cat([bos, torch.cat([random, windows])], dim=1)

    def _number(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=self._generator))


class Student:
    """The NPT being trained: its parameters, named as in a checkpoint, and its two passes."""

    def __init__(self, base: BaseModel, plan: Plan) -> None:
        self._base = base
        shape = base.shape
        layers = tuple(
            LayerLayout(
                index=index,
                kind=Kind.DUAL,
                rank=plan.np_rank,
                num_ranks=plan.num_ranks,
                prefix=f"layer_{index}_np.",
            )
            for index in plan.npt_layers
        )
        self._layout = Layout(
            layers=layers,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
        )
        generator = torch.Generator().manual_seed(plan.seed)
        self.parameters: dict[str, torch.nn.Parameter] = {}
        for layer in layers:
            for name, size in layer.shapes(shape.hidden_size, shape.intermediate_size):
                # the last factor small: a fresh NPT is near the plain MLP, with some noise
                scale = plan.np_init_scale * (0.2 if ".W_b_up" in name else 1.0)
                drawn = torch.randn(size, generator=generator) * scale
                self.parameters[name] = torch.nn.Parameter(drawn)

    def loss(self, ids_BT: Tensor) -> Tensor:
        """Return the MSE of the NPT's final hidden states against the base's."""
        first = self._layout.layers[0].index
        with torch.no_grad():
            h_BTD = self._base.embed(ids_BT)
            positions = self._base.rotary(h_BTD, torch.arange(ids_BT.shape[1]))
            h_BTD = self._through(h_BTD, positions, {}, range(first))
            above = range(first, self._base.shape.num_layers)
            wanted_BTD = self._base.norm(self._through(h_BTD, positions, {}, above))
        npt = npt_layers(
            self._layout, self.parameters, dtype=torch.float32, device=self._base.device
        )
        return functional.mse_loss(
            self._base.norm(self._through(h_BTD, positions, npt, above)), wanted_BTD
        )

    def _through(
        self,
        h_BTD: Tensor,
        positions: tuple[Tensor, Tensor],
        npt: Mapping[int, NptLayer],
        indices: range,
    ) -> Tensor:
        for index in indices:
            h_BTD = layer_forward(
                self._base.layers[index],
                h_BTD,
                position_embeddings=positions,
                npt=npt.get(index),
            )
        return h_BTD


class Trainer:
    """The loop: step, log, validate, save."""

    def __init__(self, plan: Plan, base: BaseModel) -> None:
        self._plan = plan
        self._run = Path(plan.output_dir)
        self._student = Student(base, plan)
        self._batches = Batches(base, batch_size=plan.batch_size, seed=plan.seed)
        held_out = Batches(base, batch_size=VALIDATION_ROWS, seed=plan.seed + 1)
        self._held_out_BT = held_out.rows(VALIDATION_ROWS, LONGEST)
        self._optimizer = torch.optim.AdamW(
            self._student.parameters.values(),
            lr=plan.learning_rate,
            weight_decay=plan.weight_decay,
            betas=(0.9, 0.95),
        )
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)
        self._best = math.inf

    def train(self) -> None:
        """Run all steps; leaves config, log and checkpoints in the run's folder."""
        self._run.mkdir(parents=True, exist_ok=True)
        _write_json(self._run / "config.json", asdict(self._plan))
        saves = frozenset(save_steps(self._plan.max_steps))
        with (self._run / "training_log.jsonl").open("w", encoding="utf-8") as log:
            for step, row in self._steps():
                if step % self._plan.logging_steps == 0 or step in saves:
                    _write_line(log, row)
                if step in saves:
                    self._save(f"checkpoint-{step}", step)
                    self._validate(step, log)
        self._save("final", self._plan.max_steps)

    def _steps(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Take all steps; yields after each what the log may say of it."""
        for step in range(1, self._plan.max_steps + 1):
            started = time.perf_counter()
            rate = self._scheduler.get_last_lr()[0]
            loss = self._student.loss(self._batches.draw())
            self._optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(
                self._student.parameters.values(), self._plan.gradient_clip_value
            )
            self._optimizer.step()
            self._scheduler.step()
            yield (
                step,
                {
                    "step": step,
                    "total_loss": loss.item(),
                    "fidelity_loss": loss.item(),
                    "learning_rate": float(rate),
                    "grad_norm": norm.item(),
                    "time_per_step": time.perf_counter() - started,
                },
            )

    def _validate(self, step: int, log: Any) -> None:  # noqa: ANN401 - TextIO
        with torch.no_grad():
            loss = self._student.loss(self._held_out_BT).item()
        _write_line(log, {"step": step, "val_loss": loss, "val_fidelity_loss": loss})
        if loss < self._best:
            self._best = loss
            self._save("best", step)

    def _rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a twentieth."""
        rising = min(1.0, (step + 1) / self._plan.warmup_steps)
        falling = 0.5 * (1 + math.cos(math.pi * step / self._plan.max_steps))
        return rising * (0.05 + 0.95 * falling)

    def _save(self, name: str, step: int) -> None:
        folder = self._run / "checkpoints" / name
        folder.mkdir(parents=True, exist_ok=True)
        weights = {key: value.detach().cpu() for key, value in self._student.parameters.items()}
        torch.save(weights, folder / "npt_weights.pt")
        state = {
            "global_step": step,
            "batch_count": step,
            "current_epoch": 0,
            "best_val_loss": self._best,
            "optimizer_state_dict": self._optimizer.state_dict(),
            "scheduler_state_dict": self._scheduler.state_dict(),
            "scaler_state_dict": None,
            "config": asdict(self._plan),
        }
        torch.save(state, folder / "training_state.pt")
        keys = ("model_name", "batch_size", "learning_rate", "max_steps")
        _write_json(folder / "config.json", {key: getattr(self._plan, key) for key in keys})


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _write_line(log: Any, row: Mapping[str, float]) -> None:  # noqa: ANN401 - TextIO
    log.write(json.dumps(row) + "\n")
    log.flush()


def main() -> int:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(prog="nptwatch.demo.trainer", description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for the maths")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    torch.set_num_threads(options.threads)
    base = load_base(str(options.base.resolve()), local_files_only=True)
    plan = Plan(
        model_name=str(options.base.resolve()),
        output_dir=str(options.run.resolve()),
        max_steps=options.steps,
        warmup_steps=max(1, options.steps // 5),
        seed=options.seed,
    )
    Trainer(plan, base).train()
    return 0


if __name__ == "__main__":
    sys.exit(main())
