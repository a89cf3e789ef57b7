"""The demo's parts, and the demo itself in short, as a user gets them."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from nptwatch.demo.folder import RUN, DemoFolder
from nptwatch.diagnostics.probes import QUICK_PROMPTS
from nptwatch.npt.files import base_model_of, step_of
from nptwatch.npt.layout import Kind, infer_layout
from nptwatch.npt.reader import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 40
OFFLINE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def python(*argv: object) -> None:
    """Run a module of ours to its end."""
    command = [sys.executable, "-m", *map(str, argv)]
    subprocess.run(command, check=True, timeout=120, env=os.environ | OFFLINE)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the demo's base model as the demo does."""
    folder: Path = tmp_path_factory.mktemp("demo") / "base"
    python("nptwatch.demo.base", "--output", folder, "--seed", 0)
    return folder


@pytest.fixture(scope="module")
def run(base: Path) -> Path:
    """Train a few steps as the demo does."""
    folder = base.parent / "experiments" / RUN
    python("nptwatch.demo.trainer", "--base", base, "--run", folder, "--steps", STEPS, "--seed", 0)
    return folder


def test_base_loads_as_any_llama_and_has_a_llama_s_logits(base: Path) -> None:
    """AutoModelForCausalLM and AutoTokenizer load it offline; logits have a deviation near 2.5."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    ids = [tokenizer(prompt)["input_ids"] for prompt in QUICK_PROMPTS]
    with torch.no_grad():
        logits = [model(torch.tensor([each])).logits.flatten() for each in ids]
    assert model.config.model_type == "llama"
    assert torch.cat(logits).std().item() == pytest.approx(2.5, rel=0.02)
    assert {each[0] for each in ids} == {tokenizer.bos_token_id}
    assert [tokenizer.decode(each[1:]) for each in ids] == list(QUICK_PROMPTS)
    text = "Whatever: ünïcode, 日本, 🦙\n\ttabs."
    assert tokenizer.decode(tokenizer(text)["input_ids"][1:]) == text


def test_trainer_leaves_what_npt_trainers_leave(base: Path, run: Path) -> None:
    """Folders, files, their order in time, steps and base model are those of a real run."""
    config = json.loads((run / "config.json").read_text())
    assert (config["model_name"], config["npt_layers"]) == (str(base), [2, 3])
    folders = {path.name for path in (run / "checkpoints").iterdir()}
    assert {"checkpoint-1", f"checkpoint-{STEPS}", "best", "final"} <= folders
    for name in folders:
        folder = run / "checkpoints" / name
        files = [folder / file for file in ("npt_weights.pt", "training_state.pt", "config.json")]
        assert sorted(folder.iterdir()) == sorted(files)
        times = [file.stat().st_mtime_ns for file in files]
        assert times == sorted(times)
        assert base_model_of(files[0], run) == str(base)
        wanted = STEPS if name == "final" else step_of(files[0])
        state = torch.load(files[1], weights_only=True)
        assert state["global_step"] == wanted
        first = state["optimizer_state_dict"]["state"][0]
        assert {"step", "exp_avg", "exp_avg_sq"} <= first.keys()  # AdamW's own


def test_checkpoints_are_dual_npts_of_the_upper_layers(run: Path) -> None:
    """The weights read as layers 2 and 3, dual, R 64, K 2, in float32."""
    path = run / "checkpoints" / "final" / "npt_weights.pt"
    checkpoint = read_checkpoint(path, max_bytes=2**30)
    layers = infer_layout(checkpoint.shapes).layers
    assert [(each.index, each.kind, each.rank, each.num_ranks) for each in layers] == [
        (2, Kind.DUAL, 64, 2),
        (3, Kind.DUAL, 64, 2),
    ]
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {torch.float32}


def test_training_is_real_and_logged(run: Path) -> None:
    """The logged loss falls, validation too, and the weights move from save to save."""
    lines = [json.loads(line) for line in (run / "training_log.jsonl").read_text().splitlines()]
    losses = [line["fidelity_loss"] for line in lines if "fidelity_loss" in line]
    validation = [line["val_loss"] for line in lines if "val_loss" in line]
    assert losses[-1] < losses[0] / 2
    assert validation[-1] < validation[0] / 2
    keys = {"step", "total_loss", "fidelity_loss", "learning_rate", "grad_norm", "time_per_step"}
    assert lines[0].keys() == keys
    name = "layer_2_np.W_down_gate.0"
    early, late = (
        torch.load(run / "checkpoints" / folder / "npt_weights.pt", weights_only=True)[name]
        for folder in ("checkpoint-1", "final")
    )
    assert not torch.equal(early, late)


def demo(folder: Path, *options: object) -> subprocess.Popen[str]:
    """Start `nptwatch demo` with its output in a pipe."""
    argv = [sys.executable, "-m", "nptwatch", "demo", "--output", str(folder), *map(str, options)]
    return subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder.parent,
        # settings of the user's must not reach the demo's daemon
        env=os.environ | OFFLINE | {"NPTWATCH_WATCH__INCLUDE": '["nothing"]'},
    )


@pytest.mark.slow
def test_the_whole_demo_in_short(tmp_path: Path) -> None:
    """Poor at first, good at last, all measured, full where the policy says, alert, exit code 0."""
    process = demo(tmp_path / "demo", "--steps", 400)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    assert "POOR (step 10)" in out
    assert "GOOD" in out.partition("status: ")[2].splitlines()[0]
    folder = DemoFolder(path=tmp_path / "demo")
    events = [json.loads(line) for line in folder.alerts.read_text().splitlines()]
    assert events[0]["kind"] == "reached_good"
    assert " ".join(events[0]["text"].split()) in " ".join(
        out.split()
    )  # wrapped to the width of a terminal
    assert "daemon_stopped" in folder.daemon_log.read_text()
    lines = out.splitlines()
    steps = [line.split()[0] for line in lines if line.strip()[:1].isdigit() and " done " in line]
    saved = {path.name for path in (folder.run / "checkpoints").iterdir()} - {"best", "final"}
    assert {f"checkpoint-{step}" for step in steps} == saved
    history = json.loads(typed(out, " history ", "--json", cwd=tmp_path))
    assert_full_where_the_policy_says(history)
    assert "READY" in typed(out, " best ", cwd=tmp_path)
    assert "5. Progressive Layer Activation" in typed(out, " full ", cwd=tmp_path)
    assert "POOR" in typed(out, " compare ", cwd=tmp_path)


def assert_full_where_the_policy_says(history: list[dict[str, Any]]) -> None:  # Any: free JSON
    """Work the default policy out again: on reaching GOOD, on a new best, each tenth checkpoint.

    Which checkpoint is the tenth when it is measured depends on what was found by then; training
    saves in step order, so here it is the tenth row.
    """
    wanted, reached, lowest = {}, False, math.inf
    for nth, row in enumerate(history, 1):
        good = row["grade"] in {"GOOD", "EXCELLENT"}
        if good and not reached:
            wanted[row["step"]] = f"reached {row['grade']}"
        elif good and row["mse"] < lowest:
            wanted[row["step"]] = "new best"
        elif nth % 10 == 0:
            wanted[row["step"]] = "every 10th checkpoint"
        reached, lowest = good, min(lowest, row["mse"])
    found = {row["step"]: row["full_because"] for row in history if row["overall_status"]}
    assert found == wanted
    assert {row["profile"] for row in history} == {"quick", "quick+full"}


def typed(out: str, verb: str, *more: str, cwd: Path) -> str:
    """Type a command that the demo's last page names; what it prints."""
    line = next(line for line in out.splitlines() if verb in line and "-m nptwatch" in line)
    done = subprocess.run(
        [*shlex.split(line), *more], capture_output=True, text=True, check=True, cwd=cwd
    )
    return done.stdout


@pytest.mark.slow
def test_ctrl_c_stops_trainer_and_daemon(tmp_path: Path) -> None:
    """SIGINT in mid-training: exit 130, nothing runs on, files stay, the folder is free again."""
    folder = DemoFolder(path=tmp_path / "demo")
    process = demo(folder.path)
    wait_until((folder.run / "checkpoints").is_dir, process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert f"stopped; what was made is in {folder.path}" in out
    assert "daemon_stopped" in folder.daemon_log.read_text()
    steps = (folder.run / "training_log.jsonl").read_bytes()
    with folder.taken():  # the lock is inherited: nobody holds it any more
        assert b'"step": 1000' not in steps


@pytest.mark.slow
def test_a_dead_daemon_fails_the_demo(tmp_path: Path) -> None:
    """The demo says that its daemon died, stops the trainer, and exits 1."""
    folder = DemoFolder(path=tmp_path / "demo")
    process = demo(folder.path)
    wait_until((folder.run / "checkpoints").is_dir, process)
    os.kill(daemon_pid(process.pid), signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1, out
    assert "the daemon ended unasked (SIGKILL)" in out
    assert b'"step": 1000' not in (folder.run / "training_log.jsonl").read_bytes()


def wait_until(
    reached: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 90
) -> None:
    """Poll, as long as the demo lives."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def daemon_pid(parent: int) -> int:
    """Find the demo's daemon among its children."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    argv = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return next(pid for pid, command in argv.items() if b"\0nptwatch\0run\0" in command)
