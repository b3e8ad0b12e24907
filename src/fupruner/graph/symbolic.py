"""The fast front end: symbolic tracing of the models that allow it, into the same canonical graph as ``torch.export``.

Exporting takes 5 to 20 ms an operator, tracing a hundredth. The model runs once with proxies, and what that recorded is rebuilt in
``canonical``. Whatever that does not know, writes to a tensor that another view shows, or branches on values, makes the whole
model go through ``torch.export`` instead; and the graph is kept only if it computes what the model computes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from fupruner.errors import TraceError
from fupruner.graph import check
from fupruner.graph.borrowed import ReadOnly, WriteError, borrowed
from fupruner.graph.canonical import canonical
from fupruner.graph.proxies import Tracer
from fupruner.graph.recall import Recall

_TOLERANCE = 1e-4
_SMALL = 64


def capture_symbolically(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule | None:
    """Trace a model with proxies; None when it does not allow that. The model is not modified.

    The graph may show the memory of the model's own tensors.
    """
    if any(x.dim() < 2 or not x.is_floating_point() for x in inputs):
        return None
    try:
        copied = borrowed(model)
        with ReadOnly(model):
            return _captured(copied, inputs)
    except WriteError:
        return _captured_from_copy(model, inputs)
    except Exception:  # it cannot be copied: the long way says so
        return None


def _captured_from_copy(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule | None:
    """The graph of a model that writes to its own tensors, which only matters if they change."""
    copied = copy.deepcopy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    graph_module = _captured(copied, inputs)
    _refuse_side_effects(model, copied)
    return graph_module


def _captured(copied: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule | None:
    try:
        tracer = Tracer(copied, inputs)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            graph_module = canonical(tracer.trace(copied), tracer.root, inputs)
    except WriteError:
        raise
    except (
        Exception
    ):  # code of other people runs here, with proxies that it was not written for: anything may be raised
        return None
    graph_module.eval()
    return graph_module if _agrees(copied, graph_module, inputs) else None


def _refuse_side_effects(model: nn.Module, copied: nn.Module) -> None:
    """A model that writes to its own weights when it is called has no fixed function."""
    now = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name not in now or not torch.equal(tensor, now[name]):
            raise TraceError(f"{type(model).__name__} changes its own {name} when it is called in eval mode.")


@torch.no_grad()
def _agrees(model: nn.Module, graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> bool:
    """Whether the graph computes what the model computes, for another batch size and, where that is possible, a small image.

    Sizes of images are constants in the graph, as they are in an exported one: what matters is the size that was traced.
    """
    for probe in _probes(inputs):
        try:
            with Recall():
                expected = model(*probe)
                actual = graph_module(*probe)
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
            continue
        if check.relative_error(expected, actual) <= _TOLERANCE:
            return True
    return False


def _probes(inputs: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    largest = max([d for x in inputs if x.dim() == 4 for d in x.shape[2:]], default=0)
    if largest > _SMALL:
        yield tuple(check.random_like(x, batch=3, delta=_SMALL - largest, seed=3) for x in inputs)
    batch = 1 if largest > 2 * _SMALL else 3  # large images take their time
    yield tuple(check.random_like(x, batch=batch, seed=3) for x in inputs)
