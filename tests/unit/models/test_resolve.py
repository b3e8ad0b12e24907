"""Names, files and callables to modules, and what is said about those that are none."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fupruner.errors import InputError
from fupruner.models.cifar_resnet import resnet20
from fupruner.models.resolve import as_module, load_model
from fupruner.targets.onnx_file import write_onnx

USER_MODULE = """
import torch
built = torch.nn.Linear(3, 2)
number = 3
class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
def make():
    return torch.nn.Conv2d(3, 2, 1)
def broken():
    raise RuntimeError("no such luck")
def text():
    return "not a network"
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the current directory."""
    name = f"mynets_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(USER_MODULE)
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    return name


def message(name: str) -> str:
    with pytest.raises(InputError) as caught:
        load_model(name)
    return str(caught.value)


def test_built_in_model_comes_in_eval_mode_with_its_input():
    model = load_model("fupruner:digits_resnet")
    assert not any(module.training for module in model.module.modules())
    assert (model.name, model.input_shape) == ("fupruner:digits_resnet", (1, 8, 8))
    assert len(model.mean) == len(model.std) == 1


def test_random_weights_are_the_same_each_time_and_the_seed_of_others_is_left_alone():
    state = torch.random.get_rng_state()
    first, second = load_model("fupruner:resnet20"), load_model("fupruner:resnet20")
    assert torch.equal(first.module.conv1.weight, second.module.conv1.weight)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_unknown_built_in_name_suggests_the_nearest():
    said = message("fupruner:resnet21")
    assert "Unknown built-in model 'resnet21'" in said
    assert "resnet20" in said


@pytest.mark.parametrize("name", ["resnet20", "fupruner:", ":x", "model.pt"])
def test_something_that_is_no_model_lists_the_forms(name):
    said = message(name)
    assert f"{name!r} does not name a model" in said
    assert "package.module:callable" in said


def test_callable_in_the_current_directory_is_called(user_module):
    assert isinstance(load_model(f"{user_module}:make").module, nn.Conv2d)
    assert load_model(f"{user_module}:Net").module.in_features == 4
    assert load_model(f"{user_module}:make").input_shape is None
    assert str(Path.cwd()) not in sys.path


def test_module_object_is_copied(user_module):
    loaded = load_model(f"{user_module}:built")
    theirs = sys.modules[user_module].built
    assert loaded.module is not theirs
    assert torch.equal(loaded.module.weight, theirs.weight)
    assert theirs.training


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("broken", "could not be built: RuntimeError: no such luck"),
        ("text", "returned a str, not a torch.nn.Module"),
        ("number", "is a int, not something that can be called"),
        ("maek", "Did you mean make"),
    ],
)
def test_unusable_callable_is_refused(user_module, attribute, expected):
    assert expected in message(f"{user_module}:{attribute}")


def test_module_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half_done_net.py").write_text("def make(:\n")
    importlib.invalidate_caches()
    assert "importing half_done_net failed: SyntaxError" in message("half_done_net:make")
    assert "ModuleNotFoundError: No module named 'nowhere_to_be_found'" in message("nowhere_to_be_found:make")


def test_exported_program_gives_a_module_and_its_input_shape(tmp_path):
    module = nn.Conv2d(3, 2, 3).eval()
    dynamic = ({0: torch.export.Dim("n")},)
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(module, (torch.randn(2, 3, 9, 7),), dynamic_shapes=dynamic), path)
    loaded = load_model(str(path))
    x = torch.randn(4, 3, 9, 7)
    assert loaded.input_shape == (3, 9, 7)
    torch.testing.assert_close(loaded.module(x), module(x))


def test_broken_and_missing_program_files_are_refused_without_a_traceback(tmp_path, caplog, capfd):
    (tmp_path / "bad.pt2").write_text("hello")
    assert "cannot be read as an exported program" in message(str(tmp_path / "bad.pt2"))
    assert "There is no model file" in message(str(tmp_path / "none.pt2"))
    assert "Traceback" not in caplog.text + capfd.readouterr().err


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_onnx_file_gives_a_module_and_its_input_shape(tmp_path):
    module, path = nn.Conv2d(3, 2, 3).eval(), tmp_path / "net.onnx"
    write_onnx(module, (torch.randn(2, 3, 9, 7),), path)
    loaded = load_model(str(path))
    x = torch.randn(4, 3, 9, 7)
    assert (loaded.input_shape, loaded.mean, loaded.std) == ((3, 9, 7), None, None)
    torch.testing.assert_close(loaded.module(x), module(x))


def test_missing_onnx_file_is_refused():
    assert "There is no ONNX file net.onnx" in message("net.onnx")


def test_module_is_taken_as_it_is_and_a_name_or_path_is_looked_up(tmp_path):
    module = nn.Conv2d(3, 2, 3)
    assert as_module(module) is module
    assert isinstance(as_module("fupruner:digits_resnet"), nn.Module)
    torch.export.save(torch.export.export(module.eval(), (torch.randn(2, 3, 9, 7),)), tmp_path / "net.pt2")
    assert isinstance(as_module(tmp_path / "net.pt2"), nn.Module)
    with pytest.raises(InputError, match="The model is a int, not a torch"):
        as_module(3)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_library_that_does_not_import_is_named_with_the_way_to_install_it(monkeypatch, library):
    def refuse(name: str) -> None:
        raise RuntimeError("operator does not exist")

    monkeypatch.setattr(importlib, "import_module", refuse)
    said = message(f"{library}:resnet18")
    assert f"needs {library}, which cannot be imported here: RuntimeError: operator does not exist" in said
    assert f"pip install {library}" in said


def test_torchvision_model_by_name(zoo):
    model = load_model("torchvision:resnet18")
    assert model.input_shape == (3, 224, 224)
    assert model.mean == (0.485, 0.456, 0.406)
    assert "Did you mean" in message("torchvision:resnet19")


def test_timm_model_takes_input_and_normalisation_from_its_configuration(zoo):
    pytest.importorskip("timm")
    model = load_model("timm:inception_v4")
    assert model.input_shape == (3, 299, 299)
    assert model.mean == model.std == (0.5, 0.5, 0.5)
    assert "Unknown timm model 'resnet19'" in message("timm:resnet19")


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "torchvision:squeezenet1_1", "timm:resnet10t"])
def test_network_of_a_library_has_as_many_classes_as_its_weights(zoo, tmp_path, name):
    library, _, kind = name.partition(":")
    if library == "timm":
        made = pytest.importorskip("timm").create_model(kind, num_classes=7)
    else:
        made = importlib.import_module("torchvision").models.get_model(kind, num_classes=7)
    torch.save({"state_dict": {f"module.{key}": value for key, value in made.state_dict().items()}}, tmp_path / "w.pt")
    module = load_model(name, tmp_path / "w.pt").module
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), made.parameters(), strict=True))
    assert module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_built_in_network_has_as_many_classes_as_its_weights(tmp_path):
    save_file(resnet20(num_classes=100).state_dict(), tmp_path / "w.safetensors")
    assert load_model("fupruner:resnet20", tmp_path / "w.safetensors").module.linear.out_features == 100


def test_network_of_the_user_is_not_made_for_other_classes(tmp_path):
    save_file(resnet20(num_classes=100).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="another number of classes"):
        load_model("fupruner.models.cifar_resnet:resnet20", tmp_path / "w.safetensors")
