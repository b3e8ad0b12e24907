"""Commands with the public function behind them replaced: what is parsed, passed on, printed and returned."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner, Result

import fupruner
from fupruner.cli import app
from fupruner.options import Options, read_options
from fupruner.records import FusionLog, Plan, Preview
from fupruner.targets.base import ExportResult
from unit.report.builder import build_run, fusion, layer_names, plan

DIGITS = "fupruner:digits_resnet"


@dataclass
class Fake:
    """Stands for any result of a public function."""

    module: nn.Module
    log: FusionLog
    plan: Plan
    speedup: float = 1.9
    grade: str = "measured"


class Recorder:
    """Replaces the public functions and keeps what they were called with."""

    def __init__(self, satisfied: bool = True) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.satisfied = satisfied

    def optimize(self, model: nn.Module, example_inputs: object, task: object, *, out: Path, **options: Any) -> None:
        self.calls.append(("optimize", {"inputs": example_inputs, "task": task, **options}))
        print("noise of a library")
        options["progress"].stage("train", 2)
        options["progress"].note("epoch 1")
        build_run(out, satisfied=self.satisfied)

    def preview(self, model: nn.Module, example_inputs: object, task: object, **options: Any) -> Preview:
        self.calls.append(("preview", {"inputs": example_inputs, "task": task, **options}))
        names = layer_names(4)
        return Preview(
            target="cpu", asked_speedup=1.5, attempts=3, epochs=5, steps=50, fusion=fusion(names), plan=plan(names)
        )

    def fuse(self, model: nn.Module, example_inputs: object, level: str, **chosen: Any) -> Fake:
        self.calls.append(("fuse", {"inputs": example_inputs, "level": level, **chosen}))
        return self._result(model)

    def prune(self, model: nn.Module, example_inputs: object, **amount: Any) -> Fake:
        self.calls.append(("prune", amount))
        return self._result(model)

    def export(self, module: nn.Module, example_inputs: object, path: Path, **how: Any) -> ExportResult:
        self.calls.append(("export", {"path": path, **how}))
        return ExportResult((path,), 1e-6)

    def _result(self, model: nn.Module) -> Fake:
        names = layer_names(4)
        return Fake(model, fusion(names), plan(names))


def record(monkeypatch: pytest.MonkeyPatch, satisfied: bool = True) -> Recorder:
    recorder = Recorder(satisfied)
    for name in ("optimize", "preview", "fuse", "prune", "export"):
        monkeypatch.setattr(fupruner, name, getattr(recorder, name), raising=False)
    return recorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return record(monkeypatch)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def optimize(out: Path, *more: object) -> Result:
    return invoke("optimize", DIGITS, "--data", "digits", "--out", out, *more)


def test_optimize_passes_every_flag_on_and_shows_the_result(recorder: Recorder, tmp_path: Path) -> None:
    flags = ("--max-drop", 0.5, "--speedup", 3, "--epochs", 2, "--fusion", "basic", "--batch-size", 32, "--seed", 4)
    result = optimize(tmp_path / "run", *flags)
    assert result.exit_code == 0, result.output
    ((name, options),) = recorder.calls
    assert name == "optimize"
    expected = {
        "max_drop": 0.5,
        "speedup": 3.0,
        "epochs": 2,
        "fusion": "basic",
        "batch_size": 32,
        "seed": 4,
        "target": "cpu",
    }
    assert {key: options[key] for key in expected} == expected
    assert options["inputs"][0].shape == (1, 1, 8, 8)
    assert options["task"].batch_size == 32
    for text in ("91.00 %", "90.40 %", "1.00 ms (measured)", "2.00x", "Requirement met", "report.html", "model.onnx"):
        assert text in result.stdout
    assert "epoch 1" in result.stderr


def test_requirement_not_met_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record(monkeypatch, satisfied=False)
    result = optimize(tmp_path / "run")
    assert result.exit_code == 1
    assert "Requirement NOT met" in result.stdout


def test_json_is_the_only_thing_on_stdout(recorder: Recorder, tmp_path: Path) -> None:
    result = optimize(tmp_path / "run", "--json")
    found = json.loads(result.stdout)
    assert found["requirement"] == {"max_drop": 1.0, "satisfied": True}
    assert found["out"] == str(tmp_path / "run")
    assert "noise of a library" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("optimize", DIGITS, "--data", "digits", "--out", "{out}", "--max-drop", "-1"),
            "--max-drop -1.0: must be at least 0",
        ),
        (("optimize", DIGITS, "--data", "digits", "--out", "{out}", "--target", "cpuu"), "Unknown target 'cpuu'"),
        (("optimize", "fupruner:resnet21", "--data", "digits", "--out", "{out}"), "resnet21"),
        (("optimize", DIGITS, "--data", "no/such/folder", "--out", "{out}"), "no/such/folder"),
        (("optimize", DIGITS, "--weights", "none.pt", "--data", "digits", "--out", "{out}"), "none.pt"),
        (("optimize", DIGITS, "--data", "digits", "--out", "{used}"), "is not empty"),
        (("optimize", DIGITS, "--data", "digits"), "--out"),
        (("fuse", DIGITS, "--level", "max"), "Unknown fusion level 'max'"),
        (("fuse", DIGITS, "--out", "fused.pth"), "must end in .onnx or .pt2"),
        (("prune", DIGITS, "--out", "{out}.onnx"), "exactly one of --ratio, --speedup and --fit-on-chip"),
        (("prune", DIGITS, "--out", "{out}.onnx", "--ratio", "1.5"), "--ratio 1.5"),
        (("prune", DIGITS, "--out", "{out}.onnx", "--speedup", "0.5"), "--speedup 0.5: must be more than 1"),
        (("bench", "none.onnx"), "There is no file none.onnx"),
        (("export", "{used}", "--out", "{out}"), "model.pt2"),
        (("report", "{used}"), "has not finished"),
        (("sweep", "no_such.toml", "--out", "{out}"), "Cannot read a sweep from no_such.toml"),
        (("resume", "runs/x"), "There is no run folder runs/x"),
        (("resume", "{used}"), "is no run that can go on"),
        (("init", "{used}/precious.txt"), "precious.txt exists"),
        (("init", "{out}/options.toml"), "there is no folder"),
        (("optimize", DIGITS, "--data", "digits", "--out", "{out}", "--options", "{out}.toml"), "Cannot read options"),
        (("optimize", DIGITS, "--data", "digits", "--out", "{used}", "--dry-run"), "is not empty"),
    ],
)
def test_bad_input_is_exit_code_2_and_touches_nothing(
    recorder: Recorder, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "precious.txt").write_text("keep")
    places = {"out": tmp_path / "new", "used": used}
    result = invoke(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert recorder.calls == []
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
    assert [path.name for path in used.iterdir()] == ["precious.txt"]


def test_fuse_shows_operators_rules_refusals_and_error(recorder: Recorder, tmp_path: Path) -> None:
    result = invoke("fuse", DIGITS, "--level", "basic", "--out", tmp_path / "fused.onnx")
    assert result.exit_code == 0, result.output
    assert [name for name, _ in recorder.calls] == ["fuse", "export"]
    for text in (
        "BatchNorm2d",
        "41.0 M",
        "batch-norm-into-conv",
        "carried value may be negative",
        "1.2e-15",
        "<script>",
    ):
        assert text in result.stdout


def test_fuse_json_is_the_log(recorder: Recorder) -> None:
    result = invoke("fuse", DIGITS, "--json")
    assert json.loads(result.stdout)["max_error"] == 1.2e-15


def test_prune_passes_the_ratio_and_exports(recorder: Recorder, tmp_path: Path) -> None:
    result = invoke("prune", DIGITS, "--ratio", 0.5, "--out", tmp_path / "pruned.onnx")
    assert result.exit_code == 0, result.output
    how = {"target": "cpu", "ship": "auto", "data": None}
    assert recorder.calls[0] == ("prune", {"ratio": 0.5, "device": None, "fit_on_chip": False, "plans": 8, **how})
    assert recorder.calls[1] == ("export", {"path": tmp_path / "pruned.onnx", **how})
    assert "Predicted time on cpu (table): 1.00 ms -> 0.500 ms." in result.stdout
    assert "Speed-up over the original (measured): 1.90x." in result.stdout


def test_export_writes_into_a_new_folder(recorder: Recorder, tmp_path: Path) -> None:
    result = invoke("export", DIGITS, "--out", tmp_path / "shipped", "--json")
    assert json.loads(result.stdout) == {"files": [str(tmp_path / "shipped" / "model.onnx")], "max_error": 1e-6}


def test_targets_lists_the_cpu() -> None:
    assert "ONNX" in invoke("targets").stdout
    assert "cpu" in [target["name"] for target in json.loads(invoke("targets", "--json").stdout)["targets"]]


def test_report_writes_pages_again(tmp_path: Path) -> None:
    runs = [build_run(tmp_path / name, layers=4) for name in ("a", "b")]
    found = json.loads(invoke("report", *runs, "--json").stdout)
    assert found["reports"] == [str(run / "report.html") for run in runs]
    assert found["comparison"] == str(tmp_path / "comparison.html")
    assert (tmp_path / "comparison.html").exists()
    assert all((run / "report.html").exists() for run in runs)


def test_version_and_bare_call() -> None:
    assert invoke("--version").stdout.strip() == f"fupruner {fupruner.__version__}"
    assert "optimize" in invoke().output


def test_init_writes_every_default_with_what_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    assert json.loads(invoke("init", file, "--json").stdout) == {"file": str(file)}
    assert read_options(file) == Options()
    text = file.read_text()
    for name, field in Options.model_fields.items():
        assert re.search(rf"^(# )?{name} = ", text, re.MULTILINE), name
        assert str(field.description) in text.replace("\n# ", " ")
    assert "Allowed: one of none, basic, aggressive, auto." in text


def test_flags_override_the_file_and_the_file_the_defaults(recorder: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text("epochs = 7\nmax_drop = 0.25\nweight_decay = 0.0\n")
    result = optimize(tmp_path / "run", "--options", file, "--max-drop", 2, "--seed", 0)
    assert result.exit_code == 0, result.output
    ((_, options),) = recorder.calls
    assert {name: options[name] for name in ("epochs", "max_drop", "weight_decay", "batch_size")} == {
        "epochs": 7, "max_drop": 2.0, "weight_decay": 0.0, "batch_size": 128,
    }  # fmt: skip


def test_options_without_a_flag_are_set_by_name_and_reach_the_run(recorder: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('warmup = 0.2\naugment = "none"\nema = 0.5\n')
    named = ("--set", "ema=0.99", "--set", "label_smoothing=0.1", "--set", "augment=strong")
    result = optimize(tmp_path / "run", "--options", file, *named)
    assert result.exit_code == 0, result.output
    ((_, options),) = recorder.calls
    expected = {"warmup": 0.2, "ema": 0.99, "label_smoothing": 0.1, "augment": "strong"}
    assert {name: options[name] for name in expected} == expected
    task = options["task"]
    assert (task.augment, task.label_smoothing) == ("strong", 0.1)
    refused = optimize(tmp_path / "other", "--set", "ema=1.5")
    assert refused.exit_code == 2
    assert "--ema 1.5: must be at least 0 and less than 1." in refused.stderr


def test_error_in_a_file_names_line_and_allowed_values(recorder: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('# mine\nepochs = 5\n\nfusion = "most"\nepoch = 3\n')
    result = optimize(tmp_path / "run", "--options", file)
    assert result.exit_code == 2
    assert f"{file}, line 4: fusion = 'most': must be one of none, basic, aggressive, auto." in result.stderr
    assert f"{file}, line 5: epoch = 3: there is no such option; did you mean epochs?" in result.stderr


def test_dry_run_tells_and_writes_nothing(recorder: Recorder, tmp_path: Path) -> None:
    result = optimize(tmp_path / "run", "--dry-run", "--epochs", 5)
    assert result.exit_code == 0, result.output
    assert [name for name, _ in recorder.calls] == ["preview"]
    for text in ("batch-norm-into-conv", "asked for 1.50x: 1.00 ms -> 0.500 ms", "3 attempts of 5 epochs (50 steps)"):
        assert text in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_dry_run_json_is_plan_and_fusion(recorder: Recorder, tmp_path: Path) -> None:
    found = json.loads(optimize(tmp_path / "run", "--dry-run", "--json").stdout)
    assert found["dry_run"] is True
    assert found["plan"]["predicted_ms"] == 0.5
    assert found["fusion"]["level"] == "auto"
