"""``fupruner prune`` for real, on small networks: what people get wrong, and the safe choice where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from fupruner.cli import app
from unit.pruning import nets

DIGITS = "fupruner:digits_resnet"


def grey_chain() -> nn.Module:
    """A network for the digits."""
    model = nets.randomise(nets.Chain(64))
    model.a, model.fc = nets.conv(1, 64), nn.Linear(128, 10)
    return model


def single_conv() -> nn.Module:
    """A network of which nothing can go: its only filters are its output."""
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten())


class Overflowing(nn.Module):
    """Its loss is not a number on real images, though every weight is."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = grey_chain()

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(self.chain(x) * 0 - 1)


def prune(model: str, out: Path, *more: object) -> Result:
    arguments = ("prune", model, "--out", out, *more)
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})


HERE, GREY = "unit.cli.test_prune", ("--input-shape", "1x8x8")


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        (DIGITS, ("--ratio", "0"), "--ratio 0.0: must be more than 0 and less than 1"),
        (DIGITS, ("--ratio", "1"), "--ratio 1.0: must be more than 0 and less than 1"),
        (DIGITS, ("--ratio", "-0.5"), "--ratio -0.5: must be more than 0 and less than 1"),
        (DIGITS, ("--ratio", "nan"), "--ratio nan: must be more than 0 and less than 1"),
        (DIGITS, ("--ratio", "0.0001"), "removes nothing"),
        (f"{HERE}:single_conv", (*GREY, "--ratio", "0.5"), "There is nothing to prune"),
        (f"{HERE}:single_conv", (*GREY, "--speedup", "1.5"), "There is nothing to prune"),
        (f"{HERE}:grey_chain", ("--input-shape", "3x8x8", "--ratio", "0.5", "--data", "digits"), "1 channels"),
        (f"{HERE}:Overflowing", (*GREY, "--ratio", "0.5", "--data", "digits"), "scores are not numbers"),
    ],
)
def test_bad_input_is_said_and_nothing_is_written(
    tmp_path: Path, model: str, more: tuple[str, ...], message: str
) -> None:
    result = prune(model, tmp_path / "small.onnx", *more)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_out_of_reach_names_the_largest_that_was_measured(tmp_path: Path) -> None:
    result = prune(f"{HERE}:grey_chain", tmp_path / "small.onnx", *GREY, "--speedup", "1000")
    assert result.exit_code == 2, result.output
    said = " ".join(result.stderr.split())
    assert "A speed-up of 1000.00x is out of reach on cpu" in said
    assert "x is the largest that was measured" in said
    assert "Ask for at most" in said
    assert list(tmp_path.iterdir()) == []


def test_no_group_vanishes_however_much_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "small.onnx"
    result = prune(f"{HERE}:grey_chain", file, *GREY, "--ratio", "0.999", "--json")
    assert result.exit_code == 0, result.output
    widths = json.loads(result.stdout)["widths_after"]
    assert 0 < widths["a"] < 64
    assert 0 < widths["b"] < 128
    onnx.checker.check_model(str(file))


def test_images_decide_what_goes_and_repair_what_is_left(tmp_path: Path) -> None:
    file = tmp_path / "small.onnx"
    result = prune(f"{HERE}:grey_chain", file, *GREY, "--ratio", "0.5", "--data", "digits", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["importance"] == "fisher"
    assert found["speedup_grade"] == "measured"
    assert found["speedup"] > 0.95
    assert file.stat().st_size > 0
