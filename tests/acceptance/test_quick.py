"""`nptwatch quick` and `inspect` as the guide uses them: flags, output, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file

from nptwatch.cli.main import main

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
BASE = str(GOLDEN / "base")
CASE = GOLDEN / "cases" / "single-rank1-keep" / "checkpoints" / "checkpoint-2000"
EXPECTED = json.loads((CASE.parents[1] / "expected.json").read_text())
SHAPE = {"hidden": 64, "intermediate": 192}


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPTWATCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("NPTWATCH_BASE__LOCAL_FILES_ONLY", "true")  # no network at test time
    monkeypatch.chdir(tmp_path)


def quick(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Run `nptwatch quick`; its exit code, stdout and stderr."""
    code = main(["quick", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_guide_s_flags_in_both_spellings(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Underscores as the guide has them, hyphens as people type them; the numbers are golden."""
    weights = CASE / "npt_weights.pt"
    code, out, _ = quick(
        capsys, "--checkpoint", weights, "--model_name", BASE, "--verbose", "--output", "r.json"
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert code == 0
    assert f"MSE Loss: {EXPECTED['quick_avg']['mse']:.6f}" in out
    assert report["accuracy"]["avg_mse"] == pytest.approx(EXPECTED["quick_avg"]["mse"], rel=1e-4)
    assert (report["grade"], report["step"]) == ("FAIR", 2000)
    code, out, _ = quick(capsys, weights, "--model-name", BASE, "--no-accuracy")
    assert (code, "accuracy not measured" in out) == (0, True)
    code, again, _ = quick(capsys, "--checkpoint", weights, "--model_name", BASE, "--no_accuracy")
    assert (code, "accuracy not measured" in again) == (0, True)


def test_json_goes_to_stdout_and_talk_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints one object and nothing else."""
    code, out, err = quick(capsys, CASE, "--model-name", BASE, "--json")
    assert code == 0
    assert json.loads(out)["accuracy"]["avg_mse"] == pytest.approx(0.17757, rel=1e-3)
    assert "loading base model" in err


def test_fixed_residual_rules(capsys: pytest.CaptureFixture[str]) -> None:
    """`--residual drop` measures the golden case that was trained so."""
    case = GOLDEN / "cases" / "triple-rank4-drop"
    expected = json.loads((case / "expected.json").read_text())["quick_avg"]["mse"]
    _, out, _ = quick(capsys, case, "--model-name", BASE, "--residual", "drop", "--json")
    assert json.loads(out)["accuracy"]["avg_mse"] == pytest.approx(expected, rel=1e-4)
    code, _, err = quick(capsys, case, "--model-name", BASE, "--residual", "sideways")
    assert code == 2
    assert "residual" in err


def test_a_folder_of_checkpoints_gives_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    """In step order, best/ and final/ last; training_state.pt is never taken for weights."""
    run = GOLDEN / "run"
    code, out, err = quick(capsys, run, "--model-name", BASE)
    rows = out.splitlines()
    assert code == 0
    assert [row.split()[1] for row in rows[1:]] == [
        *(f"checkpoint-{n}" for n in (100, 200, 300, 400)),
        "best",
        "final",
    ]
    assert all(len(row) <= 80 for row in rows)
    assert "0.399209" in rows[1]
    assert "6/6" in err
    _, out, _ = quick(capsys, run, "--model-name", BASE, "--json")
    assert [report["step"] for report in json.loads(out)] == [100, 200, 300, 400, 400, 400]


def test_one_bad_checkpoint_of_many_does_not_stop_the_rest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The bad one is a row that says so, the others are measured, the exit code tells."""
    run = shutil.copytree(GOLDEN / "run", tmp_path / "run")
    bad = run / "experiments/equivalence/checkpoints/checkpoint-200/npt_weights.pt"
    os.truncate(bad, 20_000)
    code, out, err = quick(capsys, run, "--model-name", BASE)
    assert code == 3
    assert "half-written" in err
    assert sum("FAIR" in row for row in out.splitlines()) == 5
    assert sum("UNLOADABLE" in row for row in out.splitlines()) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.write_bytes(b""), "zero bytes"),
        (lambda p: p.write_bytes(os.urandom(3000)), "not a torch.save file"),
        (lambda p: os.truncate(tiny.save(p, good()), 9000), "half-written"),
        (lambda p: tiny.save(p, {**good(), "epoch": 3}), "'epoch' (int)"),
        (lambda p: tiny.save(p, {"exp_avg": torch.zeros(3)}), "No NPT layers found in checkpoint"),
        (lambda p: tiny.save(p, dict(list(good().items())[1:])), "missing tensor"),
        (lambda p: tiny.save(p, tiny.weights(tiny.layer(9), **SHAPE)), "layers 0 to 3 only"),
        (lambda p: tiny.save(p, tiny.weights(tiny.layer(1))), "hidden_size (D)"),
        (lambda p: tiny.save(p, mixed()), "mixed prefixes"),
    ],
)
def test_bad_input_is_one_clear_error_and_exit_3(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make: object, words: str
) -> None:
    """Whatever is wrong with the file, the message says it, and no traceback is shown."""
    path = tmp_path / "checkpoint-1" / "npt_weights.pt"
    path.parent.mkdir()
    make(path)  # type: ignore[operator]  # a lambda of the table above
    code, out, err = quick(capsys, path, "--model-name", BASE, "--output", "r.json")
    assert code == 3
    assert words in err
    assert "Traceback" not in err
    assert out == ""
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["grade"], report["accuracy"]["avg_mse"]) == ("UNLOADABLE", None)


def good() -> dict[str, torch.Tensor]:
    """Weights that fit the golden base."""
    return tiny.weights(tiny.layer(1), tiny.layer(3), **SHAPE)


def mixed() -> dict[str, torch.Tensor]:
    """Weights whose layer 1 has both prefixes."""
    tensors = good()
    tensors["model.layers.1.np_component.W_down_up"] = tensors.pop("layer_1_np.W_down_up")
    return tensors


def test_nan_is_invalid_with_exit_3_and_a_full_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """INVALID names the tensor and is a report, not an error."""
    tensors = good()
    tensors["layer_3_np.W_a_up_gate"][0, 0] = float("nan")
    path = tiny.save(tmp_path / "checkpoint-7" / "npt_weights.pt", tensors)
    code, out, _ = quick(capsys, path.parent, "--model-name", BASE)
    assert code == 3
    assert "Grade: INVALID" in out
    assert "layer_3_np.W_a_up_gate" in out


def test_exit_codes_of_everything_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Usage 2, no checkpoint 3, no base 4, no such device 6, below --fail-under 1."""
    assert quick(capsys)[0] == 2
    assert quick(capsys, CASE, "--no-such-flag")[0] == 2
    assert quick(capsys, CASE, "--config", tmp_path / "missing.toml")[0] == 2
    assert quick(capsys, tmp_path / "nowhere", "--model-name", BASE)[0] == 3
    assert quick(capsys, CASE, "--model-name", tmp_path / "nowhere")[0] == 4
    assert quick(capsys, CASE, "--model-name", BASE, "--device", "cuda:99")[0] == 6
    assert quick(capsys, CASE, "--model-name", BASE, "--fail-under", "good")[0] == 1
    assert quick(capsys, CASE, "--model-name", BASE, "--fail-under", "FAIR")[0] == 0


def test_the_base_comes_from_the_run_s_config_where_nobody_names_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden configs say "base": a folder of that name beside us is it; without one, exit 4."""
    code, _, err = quick(capsys, CASE)
    assert code == 4
    assert "'base'" in err
    monkeypatch.chdir(GOLDEN)
    assert quick(capsys, CASE)[0] == 0
    lonely = tiny.save(tmp_path / "x" / "npt_weights.pt", good())
    code, _, err = quick(capsys, lonely)
    assert code == 4
    assert "--model-name" in err


def test_inspect_shows_the_structure_without_a_base(capsys: pytest.CaptureFixture[str]) -> None:
    """Layers, kind, R, K, parameters, dtype, step, base, CRC state, as text and JSON."""
    case = GOLDEN / "cases" / "triple-rank4-drop"
    assert main(["inspect", str(case), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["layers"] == [
        {"layer": n, "kind": "triple", "rank": 8, "num_ranks": 4} for n in (0, 2, 3)
    ]
    assert (facts["step"], facts["crc"], facts["num_parameters"]) == (10000, "ok", 92160)
    assert (facts["dtypes"], facts["base_model"]) == (["float32"], "base")
    assert main(["inspect", str(case)]) == 0
    assert "Layer 2:      triple, R=8, K=4" in capsys.readouterr().out


def test_inspect_of_a_bad_file_exits_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """All faults in one message."""
    path = tiny.save(tmp_path / "npt_weights.pt", dict(list(good().items())[2:]))
    assert main(["inspect", str(path)]) == 3
    assert capsys.readouterr().err.count("missing tensor") == 2


def test_inspect_tells_what_it_can_of_a_damaged_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A flipped bit: step, base and CRC state are still told, the member is named."""
    path = tiny.save(tmp_path / "checkpoint-5" / "npt_weights.pt", good())
    numbers = good()["layer_1_np.W_b_up_up"].numpy().tobytes()
    whole = path.read_bytes()
    at = whole.index(numbers) + 100
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    assert main(["inspect", str(path), "--json"]) == 3
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert (facts["crc"], facts["step"]) == ("bad", 5)
    assert "damaged" in err
    assert "layers" not in facts


def test_inspect_says_where_there_are_no_crcs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A safetensors file has none, and that is not called ok."""
    save_file(good(), tmp_path / "npt_weights.safetensors")
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["crc"] == "none"


def test_a_bad_file_is_told_before_any_base_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Garbage that names no base is exit 3, at once; not exit 4, nor seconds later."""
    (tmp_path / "npt_weights.pt").write_bytes(b"garbage")
    code, _, err = quick(capsys, tmp_path / "npt_weights.pt")
    assert code == 3
    assert "loading base" not in err


def test_other_files_are_never_taken_for_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where every .pt counts as weights: training_state.pt, hidden and temporary ones."""
    monkeypatch.setenv("NPTWATCH_WATCH__WEIGHTS", "*.pt")
    monkeypatch.setenv("NPTWATCH_WATCH__EXCLUDE", "checkpoint-*")
    shutil.copytree(CASE, tmp_path / "run" / "checkpoint-2000")
    tiny.save(tmp_path / "run" / ".hidden" / "npt_weights.pt", good())
    tiny.save(tmp_path / "run" / "checkpoint-3.tmp" / "npt_weights.pt", good())
    code, out, _ = quick(capsys, tmp_path / "run", "--model-name", BASE, "--json")
    assert code == 0
    assert json.loads(out)["checkpoint"].endswith("run/checkpoint-2000/npt_weights.pt")


def test_inspect_never_loads_the_base_or_transformers(tmp_path: Path) -> None:
    """It is a look at a file: no model library is imported."""
    code = (
        "import sys; from nptwatch.cli.main import main\n"
        "code = main(['inspect', sys.argv[1]])\n"
        "sys.exit(code or ('transformers' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(CASE)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
