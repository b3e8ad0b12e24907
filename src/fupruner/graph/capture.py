"""Capture a model with ``torch.export``: static control flow, a batch of any size, no in-place operators."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from fupruner.errors import TraceError

VIEWS = {
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "transpose", "permute", "t", "slice", "select", "narrow", "chunk", "split",
    "split_with_sizes", "tensor_split", "unsqueeze", "squeeze", "expand", "expand_as", "alias", "detach", "unbind", "movedim", "contiguous",
    "view_as", "reshape_as", "diagonal", "unfold", "to", "getitem", "swapaxes",
}  # fmt: skip

RANDOM = {"dropout", "rand", "randn", "rand_like", "randn_like", "bernoulli", "randint", "normal", "feature_dropout",
          "alpha_dropout"}  # fmt: skip
"""Operators whose value must not be computed once and for all."""


def capture(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> tuple[ExportedProgram, bool]:
    """Export a copy of the model in eval mode and say whether the batch stayed free.

    Args:
        model: left untouched; its copy is put into eval mode.
        example_inputs: tensors whose first dimension is the batch.

    Raises:
        TraceError: the model cannot be captured; the message holds the exporter's reason.
    """
    copied = _copy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(True)
    wide = tuple(torch.cat([x, x]) if x.dim() and x.shape[0] == 1 else x for x in example_inputs)
    dynamic = tuple({0: Dim.AUTO} if x.dim() > 1 else None for x in wide)
    try:
        with _quiet():
            program = torch.export.export(copied, wide, dynamic_shapes=dynamic, strict=False)
    except Exception as first:
        try:
            with _quiet():
                program = torch.export.export(copied, example_inputs, strict=False)
        except Exception:
            raise TraceError(
                f"{type(model).__name__} cannot be captured as a graph: {_first_line(first)}",
                hint="Control flow that depends on values, and Python side effects, cannot be captured. Try the part of the model that "
                "maps an image to its output, with the example input that it expects.",
            ) from None
    mutated = sorted(
        {*program.graph_signature.buffers_to_mutate.values(), *program.graph_signature.parameters_to_mutate.values()}
    )
    if mutated:
        raise TraceError(f"{type(model).__name__} changes its own {mutated[0]} when it is called in eval mode.")
    if has_aliased_mutation(program.graph):
        with _quiet():
            program = program.run_decompositions({})
    return program, any(isinstance(d, torch.SymInt) for d in _first_input_shape(program))


def is_in_place(node: fx.Node) -> bool:
    """Whether an ATen node overwrites its first argument."""
    return (
        isinstance(node.target, torch._ops.OpOverload)
        and node.target._schema.is_mutable
        and op_name(node).endswith("_")
        and not op_name(node).startswith("__")
    )


def op_name(node: fx.Node) -> str:
    """Name of the operator of a ``call_function`` node without namespace and overload: ``conv2d``, ``add_``, ``getitem``."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[1]
    return getattr(target, "__name__", str(target))


def has_aliased_mutation(graph: fx.Graph) -> bool:
    """Whether an in-place operator writes to a tensor that another live view also shows.

    Such a write cannot be replaced by renaming; everything else can.
    """
    nodes = list(graph.nodes)
    order = {node: i for i, node in enumerate(nodes)}
    for node in nodes:
        if node.op != "call_function" or not is_in_place(node):
            continue
        written = node.args[0]
        if not isinstance(written, fx.Node):
            continue
        if written.op == "placeholder" or (
            written.op == "call_function" and op_name(written) in VIEWS and _is_live_view(written, node, order)
        ):
            return True
        for user in written.users:
            is_view = user.op == "call_function" and op_name(user) in VIEWS and order[user] < order[node]
            if is_view and any(order[later] > order[node] for later in user.users):
                return True
    return False


def _is_live_view(view: fx.Node, write: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Whether the tensor behind a view, or another view of it, is read after the write."""
    source = view
    while source.op == "call_function" and op_name(source) in VIEWS and isinstance(source.args[0], fx.Node):
        source = source.args[0]
        if any(order[user] > order[write] for user in source.users):
            return True
        if any(op_name(user) in VIEWS and user is not view and any(order[u] > order[write] for u in user.users)
               for user in source.users if user.op == "call_function"):  # fmt: skip
            return True
    return source.op == "placeholder"


def _first_input_shape(program: ExportedProgram) -> tuple[object, ...]:
    names = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names and hasattr(node.meta.get("val"), "shape"):
            return tuple(node.meta["val"].shape[:1])
    return ()


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise TraceError(f"{type(model).__name__} cannot be copied: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: what it has to say reaches the user through the error that is raised."""
    loggers = [
        logging.getLogger(name) for name in ("torch.export", "torch.fx.experimental.symbolic_shapes", "torch._dynamo")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # a failed export prints its graph there
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
