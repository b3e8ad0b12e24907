"""From what the user calls a model (a name, a file, a callable) to a module that is ready to use."""

from __future__ import annotations

import copy
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fupruner.errors import InputError, unknown_name
from fupruner.models import cifar_resnet, digits
from fupruner.models.weights import read_checkpoint

Model = nn.Module | str | Path
"""A module (left untouched), the path of an ``.onnx`` or ``.pt2`` file, or a name such as ``fupruner:resnet20``."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DIGITS_MEAN = (0.3053,)
DIGITS_STD = (0.3760,)
_LIBRARIES = ("fupruner:", "torchvision:", "timm:")
FORMS = "Give fupruner:NAME, torchvision:NAME, timm:NAME, package.module:callable, or a file: model.pt2, model.onnx."


@dataclass(frozen=True)
class LoadedModel:
    """A module and what is known about its input.

    Attributes:
        module: in eval mode (a module from a ``.pt2`` file is as it was when it was exported).
        name: as the user gave it.
        input_shape: of one input, without the batch, for example (3, 32, 32); None where it is not known.
        mean: per channel, of pixels in 0..1, that inputs are normalised with; None where it is not known.
        std: likewise.
    """

    module: nn.Module
    name: str
    input_shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


_BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    "resnet20": cifar_resnet.resnet20,
    "resnet32": cifar_resnet.resnet32,
    "resnet44": cifar_resnet.resnet44,
    "resnet56": cifar_resnet.resnet56,
    "resnet110": cifar_resnet.resnet110,
    "digits_resnet": digits.digits_resnet,
}


def load_model(name: str, weights: Path | None = None) -> LoadedModel:
    """Find a model by name or file and load its weights.

    Without ``weights``, networks that are built by name have random weights, the same ones each time. With ``weights``, those of
    a library have as many classes as these tell apart.

    Args:
        name: ``fupruner:NAME``, ``torchvision:NAME``, ``timm:NAME``, ``package.module:callable`` (looked up in the
            current directory too; called without arguments), a ``.pt2`` or an ``.onnx`` file.
        weights: a checkpoint, see :func:`fupruner.models.weights.read_checkpoint`.

    Raises:
        InputError: there is no such model, it cannot be built or imported, or the weights do not fit.
    """
    checkpoint = None if weights is None else read_checkpoint(weights)
    with _fixed_random_weights():
        model = _find(name)
        if checkpoint and name.startswith(_LIBRARIES) and (classes := checkpoint.classes_for(model.module)):
            model = _find(name, num_classes=classes)
    if checkpoint:
        checkpoint.load_into(model.module)
    return model


def as_module(model: Model) -> nn.Module:
    """A module as it is, or the one that a name or a path leads to, see :func:`load_model`.

    Raises:
        InputError: there is no such model, or what was given is neither a module nor a name.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, str | Path):
        return load_model(str(model)).module
    raise InputError(f"The model is a {type(model).__name__}, not a torch.nn.Module, a path or a name.", hint=FORMS)


def _find(name: str, **options: Any) -> LoadedModel:
    suffix = Path(name).suffix
    if suffix == ".onnx":
        return _from_onnx(name)
    if suffix == ".pt2":
        return _from_file(name)
    kind, colon, rest = name.partition(":")
    if not colon or not kind or not rest:
        raise InputError(f"{name!r} does not name a model.", hint=FORMS)
    families = {"fupruner": _built_in, "torchvision": _from_torchvision, "timm": _from_timm}
    return families[kind](name, rest, **options) if kind in families else _from_callable(name, rest)


def _built_in(name: str, rest: str, **options: Any) -> LoadedModel:
    if rest not in _BUILT_IN:
        raise unknown_name("built-in model", rest, _BUILT_IN)
    module = _BUILT_IN[rest](**options).eval()
    if rest == "digits_resnet":
        return LoadedModel(module, name, (1, 8, 8), DIGITS_MEAN, DIGITS_STD)
    return LoadedModel(module, name, (3, 32, 32), IMAGENET_MEAN, IMAGENET_STD)


def _from_torchvision(name: str, rest: str, **options: Any) -> LoadedModel:
    models = _import_library("torchvision").models
    if rest not in models.list_models(models):
        raise unknown_name("torchvision model", rest, models.list_models(models))
    # Networks that train with extra losses warn that their initialisation will change; weights are loaded anyway.
    if rest in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    module = _build(name, lambda: models.get_model(rest, weights=None, **options))
    size = 299 if rest == "inception_v3" else 224
    return LoadedModel(module, name, (3, size, size), IMAGENET_MEAN, IMAGENET_STD)


def _from_timm(name: str, rest: str, **options: Any) -> LoadedModel:
    timm = _import_library("timm")
    if rest.partition(".")[0] not in timm.list_models():
        raise unknown_name("timm model", rest, timm.list_models())
    module = _build(name, lambda: timm.create_model(rest, pretrained=False, **options))
    config: dict[str, Any] = getattr(module, "default_cfg", None) or {}
    found = {key: tuple(config[key]) if config.get(key) else None for key in ("input_size", "mean", "std")}
    return LoadedModel(module, name, found["input_size"], found["mean"], found["std"])


def _from_callable(name: str, _rest: str) -> LoadedModel:
    where, _, attribute = name.rpartition(":")
    module = _import_user_module(where, name)
    target = getattr(module, attribute, None)
    if target is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"callable of {where}", attribute, public)
    if isinstance(target, nn.Module):
        return LoadedModel(copy.deepcopy(target).eval(), name)
    if not callable(target):
        raise InputError(f"{name} is a {type(target).__name__}, not something that can be called.", hint=FORMS)
    return LoadedModel(_build(name, target), name)


def _from_file(name: str) -> LoadedModel:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"There is no model file {path}.", hint=FORMS)
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it prints the traceback of an error that is told below
    try:
        program = torch.export.load(path)
        module: nn.Module = program.module()
    except Exception as error:  # torch.export.load does not say which errors a broken file leads to
        raise InputError(
            f"{path} cannot be read as an exported program: {_reason(error)}",
            hint="Write it with torch.export.save(torch.export.export(model, inputs), path).",
        ) from None
    finally:
        logger.setLevel(level)
    inputs = program.example_inputs[0] if program.example_inputs else ()
    shape = tuple(inputs[0].shape[1:]) if inputs and isinstance(inputs[0], torch.Tensor) else None
    return LoadedModel(module, name, shape)


def _from_onnx(name: str) -> LoadedModel:
    from fupruner.onnx_import import import_onnx  # noqa: PLC0415 - onnx and its runtime are needed for these files alone

    imported = import_onnx(name)
    for note in imported.notes:
        logging.getLogger(__name__).warning(note)
    return LoadedModel(imported.module, name, imported.input_shape)


def _build(name: str, make: Callable[[], object]) -> nn.Module:
    try:
        module = make()
    except Exception as error:  # whatever the user's code raises
        raise InputError(
            f"{name} could not be built: {_reason(error)}",
            hint="It must be callable without arguments and return a torch.nn.Module.",
        ) from error
    if not isinstance(module, nn.Module):
        raise InputError(f"{name} returned a {type(module).__name__}, not a torch.nn.Module.")
    return module.eval()


def _import_library(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except Exception as error:  # a broken installation fails with anything, for example RuntimeError
        raise InputError(
            f"{package}:NAME needs {package}, which cannot be imported here: {_reason(error)}",
            hint=f"Install it with: pip install {package}",
        ) from error


def _import_user_module(where: str, name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(where)
    except Exception as error:  # whatever the user's module raises
        raise InputError(f"{name}: importing {where} failed: {_reason(error)}", hint=FORMS) from error
    finally:
        sys.path.pop(0)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _fixed_random_weights() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
