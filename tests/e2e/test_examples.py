"""Every example runs, on less data and for fewer epochs than it does by itself."""

from __future__ import annotations

import functools
import importlib
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import torch

import fupruner
from fupruner.targets import local
from fupruner.targets.registry import target_names

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def short_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here asserts more of a speed-up than that there is one."""
    monkeypatch.setattr(local, "interleave", functools.partial(local.interleave, total_seconds=0.4, slot_seconds=0.01))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    """Imports an example by name; examples may import each other, as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(EXAMPLES)):
            del sys.modules[name]


def test_segmentation_is_brought_as_a_task(example, tmp_path: Path) -> None:
    segmentation: ModuleType = example("segmentation")
    result = segmentation.main(tmp_path / "run", images=128, epochs=5)
    assert result.speedup > 1.2
    assert result.baseline.accuracy > 45  # a network that sees only ground scores about 27
    validation = segmentation.shapes(256, seed=1)
    assert segmentation.mean_iou(result.module.eval(), validation) == pytest.approx(result.final.accuracy, abs=0.1)
    page = (tmp_path / "run" / "report.html").read_text().partition("</style>")[2].partition("<script")[0]
    page = re.sub("<[^>]*>", " ", page)
    assert "Mean IoU against latency" in page
    assert "of mean IoU may be lost" in page
    assert (
        "accuracy" not in page.rpartition("Options and conditions")[0].lower()
    )  # events keep the names of their fields
    assert json.loads((tmp_path / "run" / "metric.json").read_text()) == {"name": "mean IoU", "unit": "%"}


def test_detector_is_brought_as_a_task(example, tmp_path: Path) -> None:
    detector: ModuleType = example("detector")
    scenes = detector.scenes(64, seed=3)
    _, truth, radii = scenes.tensors
    perfect = torch.full((64, 4 + detector.CLASSES, len(detector.PITCH)), -9.0)
    cells = detector.owners(truth, radii)
    sides = torch.cat([detector.CENTRES[cells] - truth[..., :2], truth[..., 2:] - detector.CENTRES[cells]], -1)
    raw = torch.log(torch.expm1((sides / (2 * detector.PITCH[cells])[..., None]).clamp(min=1e-3)))
    for kind in range(detector.CLASSES):
        perfect[torch.arange(64), 4 + kind, cells[:, kind]] = 9.0
        perfect[torch.arange(64), :4, cells[:, kind]] = raw[:, kind]
    batches = iter(perfect.split(64))
    assert detector.mean_average_precision(lambda images: next(batches), scenes) > 95  # two may share a cell
    result = detector.main(tmp_path / "run", images=512, epochs=4)
    assert result.speedup > 1.2
    assert result.baseline.accuracy > 25
    assert result.final.accuracy > result.baseline.accuracy - 10


def check_loop(outcome: tuple[float, float, object], epochs: int) -> None:
    before, after, result = outcome
    assert before > 85
    assert after > before - 10
    assert result.speedup > 1.2  # type: ignore[attr-defined]
    assert [epoch.epoch for epoch in result.epochs] == list(range(1, epochs + 1))  # type: ignore[attr-defined]
    assert result.epochs[-1].metric == pytest.approx(after, abs=1)  # type: ignore[attr-defined]
    assert result.module(torch.zeros(3, 1, 8, 8)).shape == (3, 10)  # type: ignore[attr-defined]


def test_plain_loop(example) -> None:
    check_loop(example("plain_loop").main(epochs=2), epochs=2)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_lightning_loop(
    example, zoo: ModuleType
) -> None:  # zoo: metrics of Lightning import torchvision where it is installed
    pytest.importorskip("pytorch_lightning", reason="needs pip install pytorch-lightning")
    check_loop(example("lightning_loop").main(epochs=2), epochs=2)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_huggingface_trainer(example, zoo: ModuleType, tmp_path: Path) -> None:
    for library in ("transformers", "accelerate"):
        pytest.importorskip(library, reason="needs pip install transformers accelerate")
    before, after, result = example("huggingface_trainer").main(tmp_path, epochs=2)
    assert before > 70
    assert after > before - 15
    assert result.speedup > 1.1
    assert [epoch.epoch for epoch in result.epochs] == [1, 2]


def test_onnx_in_onnx_out(example, tmp_path: Path) -> None:
    before, after, speedup = example("onnx_in_onnx_out").main(tmp_path, epochs=1)
    assert before > 80
    assert after > before - 10
    assert speedup > 1.1
    assert (tmp_path / "pruned.onnx").stat().st_size < (tmp_path / "digits.onnx").stat().st_size


@pytest.fixture
def tiny_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of a third-party target, found as an installed one is: by the metadata beside it."""
    package = EXAMPLES / "third_party_target"
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    metadata = tmp_path / "site" / "fupruner_tiny_board-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = project["entry-points"]["fupruner.targets"]
    lines = [f"{name} = {value}" for name, value in points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[fupruner.targets]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(metadata.parent))
    monkeypatch.syspath_prepend(str(package))


def test_third_party_target(tiny_board: None, tmp_path: Path) -> None:
    assert "tiny-board" in target_names()
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU(),
        torch.nn.Conv2d(32, 8, 3, padding=1),
    ).eval()  # fmt: skip
    images = torch.randn(1, 3, 32, 32)
    pruned = fupruner.prune(model, images, speedup=2.0, target="tiny-board")
    assert pruned.plan.target == "tiny-board"
    assert pruned.plan.baseline_ms / pruned.plan.predicted_ms >= 2
    for name, module in (("before", model), ("after", pruned.module)):
        fupruner.export(module, images, tmp_path / f"{name}.onnx", target="tiny-board")
    before, after = (
        fupruner.measure(tmp_path / f"{name}.onnx", images, target="tiny-board") for name in ("before", "after")
    )
    assert before.latency_ms / after.latency_ms >= 1.9
    assert (after.grade, after.target) == ("estimated", "tiny-board")
