"""Checkpoints into modules: accepted forms, and mismatches told key by key."""

from __future__ import annotations

import pickle
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fupruner.errors import InputError
from fupruner.models.resolve import load_model
from fupruner.models.weights import read_checkpoint


class Net(nn.Module):
    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, outputs)


class HyperDict(dict):
    """As Lightning keeps what a module was made with."""


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def zeros(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: torch.zeros_like(value) for key, value in state.items()}


def refusal(module, path) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path).load_into(module)
    return str(caught.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
        lambda state: {
            "momenta": {0: torch.ones(1)},
            "model_state_dict": state,
            "optimizer": {"state": {0: torch.ones(1)}, "lr": 0.1},
        },
        lambda state: {"model_ema": zeros(state), "model": state, "args": Namespace(lr=0.1), "best": np.float64(0.9)},
        lambda state: {
            "state_dict_ema": zeros(state),
            "state_dict": state,
            "hyper": HyperDict(width=64),
            "when": Path("."),
        },
        lambda state: {"state_dict": {**under("model.", state), "criterion.weight": torch.ones(10)}},
        lambda state: {"model": under("_orig_mod.module.", state), "n_averaged": torch.tensor(3)},
        lambda state: {"n_averaged": torch.tensor(3), **under("module.", state)},
        lambda state: {"who": {"knows": state}, "weights_1": state},
    ],
    ids=[
        "plain",
        "state_dict",
        "module-prefix",
        "both",
        "without-counters",
        "with-optimizer",
        "torchvision",
        "timm",
        "lightning",
        "compiled",
        "averaged",
        "unknown-name",
    ],
)
def test_pickled_checkpoint_forms_load(tmp_path, wrap):
    source, target = Net(), Net()
    torch.save(wrap(source.state_dict()), tmp_path / "net.pth")
    read_checkpoint(tmp_path / "net.pth").load_into(target)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_weights_of_two_such_networks_are_refused(tmp_path):
    state = Net().state_dict()
    torch.save({**under("student.", state), **under("teacher.", state)}, tmp_path / "w.pt")
    assert "several such networks: under student., teacher." in refusal(Net(), tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("change", "classes"),
    [({}, None), ({"head.weight": (7, 4), "head.bias": (7,)}, 7), ({"head.weight": (7, 9), "head.bias": (7,)}, None)],
    ids=["the-same", "other-classes", "another-width"],
)
def test_only_another_number_of_classes_counts_as_one(tmp_path, change, classes):
    state = Net().state_dict() | {key: torch.zeros(shape) for key, shape in change.items()}
    torch.save(state, tmp_path / "w.pt")
    assert read_checkpoint(tmp_path / "w.pt").classes_for(Net()) == classes


def test_what_does_not_fit_is_told_without_the_prefix(tmp_path):
    state = Net().state_dict()
    del state["head.bias"]
    torch.save({"model": under("_orig_mod.", state)}, tmp_path / "w.pt")
    said = refusal(Net(), tmp_path / "w.pt")
    assert "1 missing: head.bias 2" in said
    assert "unexpected" not in said


def test_safetensors_load_through_load_model(tmp_path):
    state = load_model("fupruner:digits_resnet").module.state_dict()
    state["linear.bias"] = torch.arange(10.0)
    save_file(state, tmp_path / "w.safetensors")
    loaded = load_model("fupruner:digits_resnet", tmp_path / "w.safetensors")
    assert torch.equal(loaded.module.linear.bias, torch.arange(10.0))


def test_misfit_lists_missing_unexpected_and_misshapen_keys_and_changes_nothing(tmp_path):
    state = Net(outputs=3).state_dict()
    state["fc.weight"] = torch.zeros(5, 7)
    del state["bn.running_mean"]
    save_file(state, tmp_path / "w.safetensors")
    module = Net()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    said = refusal(module, tmp_path / "w.safetensors")
    assert "do not fit the model" in said
    assert "1 missing: bn.running_mean 4\n" in said
    assert "1 unexpected: fc.weight 5x7\n" in said
    assert "2 of another shape: head.weight 3x4 instead of 2x4, head.bias 3 instead of 2\n" in said
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_long_lists_of_keys_are_cut(tmp_path):
    save_file(load_model("fupruner:resnet56").module.state_dict(), tmp_path / "w.safetensors")
    said = refusal(load_model("fupruner:resnet20").module, tmp_path / "w.safetensors")
    assert "and 211 more" in said
    assert len(said) < 600


@pytest.mark.parametrize(("name", "content"), [("w.pt", b"hello"), ("w.pth", b""), ("w.safetensors", b"hello")])
def test_file_that_is_no_checkpoint_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    said = refusal(Net(), tmp_path / name)
    assert name in said
    assert "is not a safetensors file" in said or "cannot be read as a checkpoint" in said


def test_pickled_code_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    (tmp_path / "w.pt").write_bytes(pickle.dumps(Evil()))
    assert "cannot be read as a checkpoint" in refusal(Net(), tmp_path / "w.pt")
    torch.save({"net": Net(), "evil": Evil()}, tmp_path / "v.pt")
    assert "does not hold a dictionary of tensors" in refusal(Net(), tmp_path / "v.pt")
    torch.save({"state_dict": Net().state_dict(), "evil": Evil()}, tmp_path / "u.pt")
    read_checkpoint(tmp_path / "u.pt").load_into(Net())
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [[1, 2], {}, {"lr": 0.1}, torch.zeros(3)])
def test_something_else_than_a_dictionary_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    assert "does not hold a dictionary of tensors" in refusal(Net(), tmp_path / "w.pt")


def test_whole_pickled_model_is_refused_with_the_way_out(tmp_path):
    torch.save(Net(), tmp_path / "w.pt")
    said = refusal(Net(), tmp_path / "w.pt")
    assert "(it holds a whole pickled object)" in said
    assert "model.state_dict()" in said


def test_missing_file_is_named(tmp_path):
    assert f"There is no weights file {tmp_path / 'none.pt'}" in refusal(Net(), tmp_path / "none.pt")
