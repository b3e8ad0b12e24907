"""Weights from checkpoint files into a module, with mismatches told key by key. No pickle is ever executed."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from fupruner.errors import InputError

Weights = dict[str, Tensor]

_SHOWN = 5
_USUAL = ("", "state_dict", "model_state_dict", "model", "net", "network", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_OPTIONAL = ".num_batches_tracked"  # older checkpoints lack the counter, and nothing but momentum=None reads it


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: of the file.
        sets: the dictionaries of tensors in it by the names under which it holds them, those with usual names first. One that
            is all that the file holds has an empty name. Tensors are on the CPU.
    """

    path: Path
    sets: dict[str, Weights]

    def load_into(self, module: nn.Module) -> None:
        """Copy the weights into a module, in place.

        Raises:
            InputError: they belong to another network; what is missing, unexpected or of another shape is said key by key.
        """
        given, expected = self._of(module), module.state_dict()
        problems = [
            _listing(
                "missing", (key for key in expected if key not in given and not key.endswith(_OPTIONAL)), expected
            ),
            _listing("unexpected", (key for key in given if key not in expected), given),
            _misshapen(given, expected),
        ]
        if any(problems):
            raise InputError(
                "\n".join([f"The weights in {self.path} do not fit the model.", *filter(None, problems)]),
                hint="Is this the checkpoint of another network, or of one with another number of classes?",
            )
        module.load_state_dict(given, strict=False)

    def classes_for(self, module: nn.Module) -> int | None:
        """How many classes the weights tell apart if the module would take them but for that number; else None."""
        given, expected = self._of(module), module.state_dict()
        pairs = [(given[key].shape, expected[key].shape) for key in expected if key in given]
        others = {(now[:1], before[:1]) for now, before in pairs if now != before}
        same = all(now[1:] == before[1:] for now, before in pairs)
        return next(iter(others))[0][0] if same and len(others) == 1 else None

    def _of(self, module: nn.Module) -> Weights:
        """What stands under the prefix under which all keys of a network are, of the first set that has them.

        Where none has, the first set without the usual prefixes, so that what does not fit is told by the network's own names.
        """
        needed = [key for key in module.state_dict() if not key.endswith(_OPTIONAL)]
        for tensors in self.sets.values():
            ends = {key.removesuffix(needed[0]) for key in tensors if needed and key.endswith(needed[0])}
            prefixes = sorted(end for end in ends if all(end + key in tensors for key in needed))
            if len(prefixes) > 1 and "" not in prefixes:
                raise InputError(
                    f"{self.path} holds the weights of several such networks: under {', '.join(prefixes)}.",
                    hint="Save the one that you mean by itself.",
                )
            if prefixes:
                start = prefixes[0]
                return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        return _without_prefix(next(iter(self.sets.values())))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    That is ``.safetensors``, or a ``.pt``/``.pth`` file with a dictionary of tensors: by itself or, as training scripts keep it,
    beside an optimizer and other things. Of several such dictionaries that fit, the one with the most usual name is taken
    (``state_dict`` before ``state_dict_ema``). Where all keys of the network stand under one prefix, as those of
    ``DataParallel``, ``torch.compile`` or a Lightning module do, it is dropped, and what stands outside it is passed over.

    Raises:
        InputError: the file is missing or holds no dictionary of tensors.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}.", hint="Check the path given to --weights.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    held = {"": content, **content} if isinstance(content, Mapping) else {}
    sets = {str(name): dict(value) for name, value in held.items() if _is_weights(value)}
    if not sets:
        kind = "whole pickled object" if isinstance(content, _Unread) else type(content).__name__
        raise InputError(
            f"{path} does not hold a dictionary of tensors (it holds a {kind}).",
            hint="Save the weights with torch.save(model.state_dict(), path) or as safetensors "
            "(whole pickled models are never loaded, because loading them runs code).",
        )
    order = sorted(sets, key=lambda name: _USUAL.index(name) if name in _USUAL else len(_USUAL))
    return Checkpoint(path, {name: sets[name] for name in order})


def _is_weights(value: object) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(key, str) and isinstance(part, Tensor) for key, part in value.items())


def _without_prefix(tensors: Weights) -> Weights:
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file: {error}.") from None


class _Unread:
    """Stands in for whatever a checkpoint holds that is no tensor, number or container, such as a script's arguments."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _UnreadDict:
    """The same for kinds of dictionaries, into which their entries are read."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return {}


def _read_pickle(path: Path) -> object:
    try:
        others: list[Any] = [(_UnreadDict if name.endswith("Dict") else _Unread, name) for name in _other_types(path)]
        with warnings.catch_warnings(), safe_globals(others):
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # a file that then fails says it better
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        raise InputError(
            f"{path} cannot be read as a checkpoint: {reason.splitlines()[0]}",
            hint="Accepted are .safetensors, and .pt or .pth files with a dictionary of tensors, as torch.save writes them.",
        ) from None


def _other_types(path: Path) -> list[str]:
    """Names of what a checkpoint would have to import; nothing is imported to find them out."""
    try:
        return get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # the format before PyTorch 1.6
        return []


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
