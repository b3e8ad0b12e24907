"""The recipe for ImageNet, as its page gives it, on generated images in the same folders."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import fupruner
from fupruner.cli import app
from fupruner.options import Options, read_options
from fupruner.targets.cpu import CpuTarget
from fupruner.targets.latency_table import LatencyTable
from fupruner.training import decode
from fupruner.training.data import load_data
from small_runs import without_clocks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "imagenet.md").read_text(encoding="utf-8")
CLASSES = ("n01440764", "n01443537", "n01484850")
SMALL = {
    "batch_size": 24, "epochs": 1, "speedup": 1.3, "max_drop": 100, "calibration_images": 24, "compensate": False, "decisions": 2,
    "plans": 5,
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def no_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about latency."""
    for owner, name in ((CpuTarget, "compare"), (CpuTarget, "layer_times"), (LatencyTable, "price")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # is put back afterwards
    without_clocks()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A colour per class, in noise; photographs of several sizes."""
    root, random = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 6)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (72 + number, 90, 3))
                pixels[..., label] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{name}_{number}.JPEG")
    return root


@pytest.fixture(scope="module")
def weights(zoo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(zoo.models.resnet18().state_dict(), file)
    return file


def documented(start: str) -> list[str]:
    """The words of a command of the page, without ``torchrun``."""
    line = next(line for line in re.findall(r"^\$ torchrun (.*)$", PAGE, re.MULTILINE) if start in line)
    return shlex.split(line.partition(start)[2])


def test_the_page_shows_the_options_file() -> None:
    file = ROOT / "examples" / "imagenet.toml"
    assert f"```toml\n{file.read_text(encoding='utf-8')}```" in PAGE
    assert read_options(file).model_fields_set >= {"epochs", "batch_size", "max_drop"}


def test_a_part_of_the_images_is_taken_as_on_the_page(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("imagenet").symlink_to(images)
    exec(re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0].replace(", 28)", ", 12)"), {})  # noqa: S102
    assert len(list(Path("imagenet_part", "train").glob("*/*.JPEG"))) == 36
    assert len(list(Path("imagenet_part", "val").glob("*/*.JPEG"))) == 18
    data = load_data("imagenet_part", image_shape=(3, 64, 64))
    assert (len(data.train), data.classes) == (36, CLASSES)


def test_the_command_of_the_page_runs_and_leaves_images_on_disk(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("imagenet").symlink_to(images)
    monkeypatch.setattr(decode, "_MEMORY_LIMIT", 20 * 3 * 64 * 64)  # holds those of val
    there = {
        "resnet18.pth": weights,
        "examples/imagenet.toml": ROOT / "examples" / "imagenet.toml",
        "runs/resnet18": "run",
    }
    words = [str(there.get(word, word)) for word in documented("-m fupruner ")]
    smaller = [word for name, value in SMALL.items() for word in ("--set", f"{name}={str(value).lower()}")]
    words += ["--input-shape", "3x64x64", *smaller]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    chosen = read_options(tmp_path / "run" / "options.toml")
    assert (chosen.weight_decay, chosen.augment, chosen.batch_size, chosen.epochs) == (1e-4, "standard", 24, 1)
    assert (tmp_path / "run" / "model.onnx").is_file()
    assert "48 images in imagenet/train would need" in re.sub(r"\s+", " ", result.output)
    assert "18 images in" not in result.output


def test_the_example_reads_images_from_disk(images: Path, weights: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("imagenet", ROOT / "examples" / "imagenet.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    task = example.imagenet(images, 24, 0, 64)
    assert task.steps_per_epoch == 2
    halves = [
        judged._evaluate(lambda batch: torch.eye(3)[torch.zeros(len(batch), dtype=int)]) for judged in task.divided()
    ]
    assert sum(halves) == pytest.approx(200 / 3, abs=0.1)  # every image is in one of the halves
    assert len(set(torch.cat([batch[1] for batch in task.calibration_batches(24)]).tolist())) == 3
    result = example.main(images, tmp_path / "run", weights=weights, options=Options(**SMALL), workers=0, size=64)
    assert isinstance(result, fupruner.RunResult)
    assert result.final.macs < result.baseline.macs
