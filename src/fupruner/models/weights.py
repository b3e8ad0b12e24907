"""Weights from checkpoint files into a module, with mismatches told key by key. No pickle is ever executed."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fupruner.errors import InputError

_SHOWN = 5
_OPTIONAL = ".num_batches_tracked"  # older checkpoints lack the counter, and nothing but momentum=None reads it


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy the weights of a checkpoint into a module, in place.

    A checkpoint is ``.safetensors``, or a ``.pt``/``.pth`` file that loads with ``weights_only=True``: a dictionary of
    tensors, or one that has it under ``state_dict``. A ``module.`` prefix on every key is dropped.

    Raises:
        InputError: the file is missing or not a checkpoint, or it belongs to another network.
    """
    given = read_checkpoint(path)
    expected = module.state_dict()
    problems = [
        _listing("missing", (key for key in expected if key not in given and not key.endswith(_OPTIONAL)), expected),
        _listing("unexpected", (key for key in given if key not in expected), given),
        _misshapen(given, expected),
    ]
    if any(problems):
        raise InputError(
            "\n".join([f"The weights in {path} do not fit the model.", *filter(None, problems)]),
            hint="Is this the checkpoint of another network, or of one with another number of classes?",
        )
    module.load_state_dict(given, strict=False)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by key, on the CPU.

    Raises:
        InputError: the file is missing or does not hold a dictionary of tensors.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}.", hint="Check the path given to --weights.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(
            f"{path} does not hold a dictionary of tensors (it holds a {type(content).__name__}).",
            hint="Save the weights with torch.save(model.state_dict(), path) or as safetensors.",
        )
    prefix = "module."
    if all(key.startswith(prefix) for key in content):
        content = {key.removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file: {error}.") from None


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # a file that then fails says it better
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} cannot be read as a checkpoint: {reason}",
            hint="Accepted are .safetensors, and .pt or .pth files that hold tensors only "
            "(whole pickled models are never loaded, because loading them runs code).",
        ) from None


def _listing(what: str, keys: Iterable[str], tensors: Mapping[str, Tensor]) -> str:
    return _shorten(what, [f"{key} {_shape(tensors[key])}" for key in keys])


def _misshapen(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    lines = [
        f"{key} {_shape(given[key])} instead of {_shape(expected[key])}"
        for key in expected
        if key in given and given[key].shape != expected[key].shape
    ]
    return _shorten("of another shape", lines)


def _shorten(what: str, lines: list[str]) -> str:
    if not lines:
        return ""
    more = f", and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return f"  {len(lines)} {what}: {', '.join(lines[:_SHOWN])}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
