"""Forms that int8 kernels like compute the same, and only what is meant is rewritten."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fupruner.targets.onnx_clean import simplify
from fupruner.targets.onnx_file import write_onnx
from fupruner.targets.onnx_int8_forms import PADDED, with_int8_forms
from fupruner.targets.runtime import open_session


class Subsampled(nn.Module):
    """A residual block whose shortcut takes every n-th pixel and pads channels with zeros."""

    def __init__(self, stride: int = 2, start: int = 0, value: float = 0.0, channels: int = 3) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(channels, 6, 3, padding=1), nn.Conv2d(6, 16, 3, stride, 1)
        self.stride, self.start, self.value = stride, start, value

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        short = F.pad(x[:, :, self.start :: self.stride, :: self.stride], (0, 0, 0, 0, 4, 6), value=self.value)
        return torch.relu(self.conv(x) + short)


def exported(module: nn.Module, tmp_path: Path, channels: int = 3) -> onnx.ModelProto:
    write_onnx(module.eval(), (torch.randn(2, channels, 8, 8),), tmp_path / "m.onnx")
    return simplify(onnx.load(str(tmp_path / "m.onnx")))


def outputs(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return np.asarray(open_session(model.SerializeToString()).run(None, {"input": x})[0])


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("stride", [2, 3])
def test_both_forms_compute_the_same_and_no_slice_is_left(stride: int, tmp_path: Path) -> None:
    before = exported(Subsampled(stride), tmp_path)
    after = with_int8_forms(before)
    assert kinds(before)["Slice"] >= 1
    assert kinds(after)["Slice"] == 0
    assert kinds(after)["Conv"] == 3
    assert [node.name for node in after.graph.node if node.op_type == "Pad"] == [PADDED]
    onnx.checker.check_model(after)
    for count in (1, 5):
        x = np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)
        assert np.allclose(outputs(before, x), outputs(after, x), atol=1e-5)


@pytest.mark.parametrize("module", [Subsampled(start=1), Subsampled(value=1.0), Subsampled(stride=1)])
def test_other_shortcuts_stay(module: Subsampled, tmp_path: Path) -> None:
    if module.start:
        module.conv = nn.Conv2d(6, 16, 3, 2, 1)
    after = with_int8_forms(exported(module, tmp_path))
    assert kinds(after)["Pad"] == 2  # the shortcut's, and the image's
    assert kinds(after)["Conv"] == 2


def test_image_of_four_channels_stays(tmp_path: Path) -> None:
    after = with_int8_forms(exported(Subsampled(channels=4), tmp_path, channels=4))
    assert kinds(after)["Pad"] == 0


def test_image_that_something_else_reads_too_stays(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + x

    after = with_int8_forms(exported(Twice(), tmp_path))
    assert kinds(after)["Pad"] == 0


def test_given_model_is_left_as_it_is(tmp_path: Path) -> None:
    model = exported(Subsampled(), tmp_path)
    before = model.SerializeToString()
    with_int8_forms(model)
    assert model.SerializeToString() == before
