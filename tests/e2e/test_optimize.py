"""The main job from the command line, on handwritten digits: a trained network in, a faster one out."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import fupruner
from fupruner.cli import app
from fupruner.models.resolve import load_model
from fupruner.training.data import ImageData, Split, load_data
from fupruner.training.loop import train
from fupruner.training.task import Classification

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = "fupruner:digits_resnet"


def digits() -> ImageData:
    loaded = load_model(MODEL)
    return load_data("digits", image_shape=loaded.input_shape, mean=loaded.mean, std=loaded.std)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was trained for a few seconds."""
    torch.manual_seed(0)
    model = load_model(MODEL).module
    train(model, Classification(digits(), batch_size=32), epochs=3, learning_rate=0.05, precision="32-true")
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_file(model.state_dict(), path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def finished(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("runs") / "digits"
    result = run("optimize", MODEL, "--weights", weights, "--data", "digits", "--out", out, "--speedup", 1.4, "--epochs", 2,
                 "--max-drop", 20, "--batch-size", 32, "--json")  # fmt: skip
    return result, out


def predictions(file: Path, split: Split | None = None) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    split = split or digits().validation
    x = split.normalise(split.images).numpy()
    return session.run(None, {session.get_inputs()[0].name: x})[0], split.labels.numpy()


def test_command_succeeds_and_prints_the_result(finished: tuple[Result, Path]) -> None:
    result, out = finished
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    written = json.loads((out / "result.json").read_text())
    assert {k: v for k, v in printed.items() if k != "out"} == written


def test_result_has_the_documented_form(finished: tuple[Result, Path]) -> None:
    written = json.loads((finished[1] / "result.json").read_text())
    keys = {"requirement", "baseline", "final", "speedup", "target", "epochs", "seconds", "hardware", "version"}
    keys |= {"precision", "baseline_precision", "drop_error"}
    assert set(written) == keys
    assert set(written["requirement"]) == {"max_drop", "satisfied"}
    for side in ("baseline", "final"):
        assert set(written[side]) == {"accuracy", "latency_ms", "latency_grade", "macs", "params"}
        assert written[side]["latency_grade"] == "measured"
    assert written["final"]["macs"] < written["baseline"]["macs"]
    assert written["final"]["params"] < written["baseline"]["params"]


def test_accuracy_is_that_of_the_shipped_file_on_images_that_the_search_did_not_look_at(
    finished: tuple[Result, Path],
) -> None:
    out = finished[1]
    written, judgement = (json.loads((out / name).read_text()) for name in ("result.json", "judgement.json"))
    looked_at, held_out = (part.data.validation for part in Classification(digits()).divided())
    for side, name in (("baseline", "baseline.onnx"), ("final", "model.onnx")):
        for split, figure in ((held_out, written[side]["accuracy"]), (looked_at, judgement[f"searched_{side}"])):
            logits, labels = predictions(out / name, split)
            assert figure == pytest.approx(100 * float((logits.argmax(1) == labels).mean()))
    assert judgement["divided"]
    drop = written["baseline"]["accuracy"] - written["final"]["accuracy"]
    assert written["requirement"]["satisfied"] == (drop <= written["requirement"]["max_drop"])


def test_loaded_network_equals_the_shipped_file(finished: tuple[Result, Path]) -> None:
    out = finished[1]
    module = fupruner.load(out)
    split = digits().validation
    with torch.no_grad():
        expected = module(split.normalise(split.images)).numpy()
    np.testing.assert_allclose(predictions(out / "model.onnx")[0], expected, atol=1e-3 * np.abs(expected).max())


def test_run_folder_tells_what_was_done(finished: tuple[Result, Path]) -> None:
    out = finished[1]
    plan = json.loads((out / "plan.json").read_text())
    assert plan["moves"]
    assert plan["baseline_ms"] / plan["predicted_ms"] >= 1.4
    fusion = json.loads((out / "fusion.json").read_text())
    assert fusion["fired"]
    assert fusion["max_error"] < 1e-9
    decisions = json.loads((out / "decisions.json").read_text())
    assert [d["step"] for d in decisions] == sorted(d["step"] for d in decisions)
    events = [json.loads(line)["event"] for line in (out / "events.jsonl").read_text().splitlines()]
    assert events[0] == "started"
    assert events[-1] == "finished"
    versions = json.loads((out / "versions.json").read_text())
    assert {name: versions[name] for name in ("FuPruner", "PyTorch", "ONNX Runtime")} == {
        "FuPruner": fupruner.__version__, "PyTorch": metadata.version("torch"), "ONNX Runtime": onnxruntime.__version__,
    }  # fmt: skip
    history = json.loads((out / "history.json").read_text())
    assert all(epoch["measured_speedup"] > 0 for attempt in history for epoch in attempt["epochs"])
    assert history[0]["decisions"] == decisions
    assert "<html" in (out / "report.html").read_text()
    assert not list(out.glob("attempt-*")) + list(out.glob(".*")) + list(out.glob("candidate*"))


def fingerprint(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_second_run_into_the_same_folder_is_refused_and_changes_nothing(
    finished: tuple[Result, Path], weights: Path
) -> None:
    out = finished[1]
    before = fingerprint(out)
    result = run("optimize", MODEL, "--weights", weights, "--data", "digits", "--out", out)
    assert result.exit_code == 2
    assert "is not empty" in result.stderr
    assert fingerprint(out) == before


def test_unreachable_speedup_says_what_is_possible_and_writes_nothing(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run(
        "optimize", MODEL, "--weights", weights, "--data", "digits", "--out", out, "--speedup", 1000, "--epochs", 1
    )
    assert result.exit_code == 2
    assert "out of reach on cpu" in result.stderr
    assert "largest predicted one" in result.stderr
    assert not out.exists()


BAD = {
    "missing weights": (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    "missing data": (["--data", "nowhere"], "nowhere"),
    "negative drop": (["--max-drop", "-1"], "--max-drop -1.0: must be at least 0"),
    "unknown target": (["--target", "cpuu"], "Did you mean cpu"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words_and_writes_nothing(case: str, weights: Path, tmp_path: Path) -> None:
    arguments = {"--weights": str(weights), "--data": "digits", "--out": str(tmp_path / "run")}
    changed, message = BAD[case]
    arguments.update(dict(zip(changed[::2], changed[1::2], strict=True)))
    result = run("optimize", MODEL, *[word for pair in arguments.items() for word in pair])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_unknown_model_suggests_the_nearest_names(tmp_path: Path) -> None:
    result = run("optimize", "fupruner:resnet21", "--data", "digits", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "resnet20" in result.stderr


def test_wrong_checkpoint_lists_the_keys(weights: Path, tmp_path: Path) -> None:
    result = run("optimize", "fupruner:resnet20", "--weights", weights, "--data", "digits", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "missing" in result.stderr.lower()
    assert "unexpected" in result.stderr.lower()
    assert not (tmp_path / "run").exists()


def branching() -> torch.nn.Module:
    """A network whose control flow depends on values, for the test below."""

    class Branching(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.flatten(1)) if float(x.sum()) > 0 else self.fc(-x.flatten(1))

    return Branching()


def test_untraceable_model_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("import torch\n" + _source_of_branching())
    monkeypatch.chdir(tmp_path)
    result = run("optimize", "mine:branching", "--data", "digits", "--out", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert "cannot be captured" in result.stderr
    assert "control flow" in result.stderr.lower()
    assert not (tmp_path / "run").exists()


def _source_of_branching() -> str:
    import inspect

    return inspect.getsource(branching)


def test_shortcuts_train_as_adds_and_ship_as_identity_filters(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run("optimize", MODEL, "--weights", weights, "--data", "digits", "--out", out, "--target", "ncs2", "--fusion", "aggressive",
                 "--speedup", 1.5, "--epochs", 1, "--max-drop", 30, "--batch-size", 32, "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    plan, before = (json.loads((out / name).read_text()) for name in ("plan.json", "graphs.json"))
    assert sum(plan["carried_after"].values()) > 0
    assert "add" in json.dumps(before["before"])
    operators = [node.op_type for node in onnx.load(out / "model.onnx").graph.node]
    assert "Add" not in operators
    shipped = torch.export.load(str(out / "model.pt2")).state_dict
    for block, carried in plan["carried_after"].items():
        if carried:
            assert len(shipped[f"{block}.conv1.weight"]) == plan["widths_after"][f"{block}.conv1"] + carried
    assert "Identity filters reserved for shortcuts" in (out / "report.html").read_text()


def test_int8_is_what_is_judged_and_shipped_beside_a_float_original(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8"
    result = run("optimize", MODEL, "--weights", weights, "--data", "digits", "--out", out, "--ship", "int8", "--speedup", 1.2,
                 "--epochs", 1, "--max-drop", 30, "--batch-size", 64)  # fmt: skip
    assert result.exit_code in (0, 1), result.output
    summary = json.loads((out / "result.json").read_text())
    assert (summary["baseline_precision"], summary["precision"]) == ("float32", "int8")
    kinds = {
        name: {node.op_type for node in onnx.load(str(out / f"{name}.onnx")).graph.node}
        for name in ("baseline", "model")
    }
    assert "QuantizeLinear" in kinds["model"]
    assert "QuantizeLinear" not in kinds["baseline"]
    assert "Ships as ONNX, int8" in result.stdout
    assert "int8" in (out / "report.html").read_text()
    logits, labels = predictions(out / "model.onnx", digits().validation)
    held = json.loads((out / "judgement.json").read_text())
    figures = (summary["final"]["accuracy"], held["searched_final"])
    accuracy = 100 * float((logits.argmax(1) == labels).mean())
    assert min(figures) - 0.2 <= accuracy <= max(figures) + 0.2  # the whole lies between its halves
    assert 0 < summary["drop_error"] < 10
    assert f"standard error of {summary['drop_error']:.2f} points" in result.stdout
