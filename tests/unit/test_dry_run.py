from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fupruner
from fupruner.errors import InputError
from fupruner.models.resolve import load_model
from fupruner.training.data import load_data
from fupruner.training.task import Classification


def digits() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], Classification]:
    model = load_model("fupruner:digits_resnet")
    images = load_data("digits", image_shape=model.input_shape, mean=model.mean, std=model.std)
    return model.module, (torch.zeros(1, *(model.input_shape or ())),), Classification(images)


def test_preview_plans_the_asked_speedup_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module, inputs, task = digits()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = fupruner.preview(module, inputs, task, speedup=1.3, calibration_images=64, epochs=2)
    assert found.asked_speedup == 1.3
    assert found.plan.baseline_ms / found.plan.predicted_ms >= 1.3
    assert found.plan.importance == "fisher"
    assert (found.attempts, found.steps) == (1, 2 * task.steps_per_epoch)
    assert found.fusion.fired
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_preview_refuses_what_is_out_of_reach() -> None:
    module, inputs, task = digits()
    with pytest.raises(InputError):
        fupruner.preview(module, inputs, task, speedup=1000, calibration_images=64)
