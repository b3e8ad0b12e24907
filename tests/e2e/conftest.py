"""One small run that several files compare theirs with."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import small_runs as runs
from fupruner.models.resolve import load_model
from fupruner.training.data import load_data
from fupruner.training.loop import train
from fupruner.training.task import Classification

MODEL = "fupruner:digits_resnet"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> runs.Finished:
    """A network trained for a second, optimised from the command line."""
    folder = tmp_path_factory.mktemp("finished")
    torch.manual_seed(0)
    loaded = load_model(MODEL)
    data = load_data("digits", image_shape=loaded.input_shape, mean=loaded.mean, std=loaded.std)
    train(loaded.module, Classification(data, batch_size=64), epochs=1, learning_rate=0.1, precision="32-true")
    weights = folder / "digits.safetensors"
    save_file(loaded.module.state_dict(), weights)
    options = [word for pair in runs.OPTIONS.items() for word in pair]
    command = ("optimize", MODEL, "--weights", str(weights), "--data", "digits", *options)
    assert runs.fupruner([*command, "--out", str(folder / "run")], folder / "log") == 0, (folder / "log").read_text()
    return runs.Finished(command, folder / "run", int((folder / "log").read_text().split()[-1]))
