"""The part of a graph that a rewrite touches, evaluated in float64 before and after on a small random input."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from fupruner.fusion.rule import Match
from fupruner.graph import edit, shapes
from fupruner.graph.cost import CONVS, NORMS
from fupruner.graph.double import FastDepthwise

_SMALL: tuple[tuple[int, int], ...] = ((5, 4), (23, 22))
"""Rows and columns to which images are cut for the check; one odd and one even, so that strides meet both."""
_SMALLEST = (3, 2)
"""The same where every layer with large weights looks at one pixel at a time."""
_TOKENS = 5
"""Tokens to which sequences are cut, see ``_SMALL``."""


class Region:
    """What a match covers: evaluated once when it is made, and again after the rewrite.

    Attributes:
        nodes: between the inputs and the output, in graph order.
        expected: value of the output before the rewrite.
    """

    def __init__(self, graph_module: fx.GraphModule, match: Match) -> None:
        self.graph_module = graph_module
        self.match = match
        self.nodes = between(match.output, match.inputs)
        self.values, self.expected = self._first_evaluation()

    def _first_evaluation(self) -> tuple[dict[fx.Node, Any], Any]:
        full = [shapes.shape_of(node) for node in self.match.inputs]
        numbers = _numbers_before(self.nodes, self.match.inputs)
        sizes = (_SMALLEST, *_SMALL) if self._sees_pixels_alone() else _SMALL
        for candidate in _shapes_to_try(full, sizes, one_image=not numbers):
            values = _random_values(self.match, candidate)
            try:
                return values, evaluate(self.graph_module, self.nodes, values, self.match.output)
            except (RuntimeError, ValueError, IndexError, EmptyError):
                continue
        raise ValueError(f"The region of {self.match.output.name} cannot be evaluated on its own.")

    def _sees_pixels_alone(self) -> bool:
        """Whether the region is made of 1x1 convolutions, norms and what has no weights and no window."""
        called = [edit.layer_at(self.graph_module, str(n.target)) for n in self.nodes if n.op == "call_module"]
        return all(
            isinstance(layer, NORMS) or (isinstance(layer, CONVS) and max(layer.kernel_size) == 1) for layer in called
        )

    def actual(self, output: fx.Node) -> Any:
        """Value of the output after the rewrite."""
        return evaluate(self.graph_module, between(output, self.match.inputs), self.values, output)

    def write_shapes(self, output: fx.Node) -> None:
        """Write the shapes of what the rewrite left."""
        known = {
            node: torch.empty(shapes.shape_of(node), device="meta", dtype=torch.float64) for node in self.match.inputs
        }
        nodes = between(output, self.match.inputs)
        known.update(_numbers_before(nodes, known))
        shapes.propagate_nodes(self.graph_module, nodes, known)

    def erase_dead(self) -> None:
        """Erase the nodes that the rewrite has left without a reader."""
        edit.erase_dead(self.nodes)


class EmptyError(Exception):
    """The cut image is too small: nothing is left at the output."""


def between(output: fx.Node, inputs: Iterable[fx.Node]) -> list[fx.Node]:
    """Nodes that the output needs beyond the inputs, in graph order; numbers such as a batch size count as given."""
    given = set(inputs)
    needed: set[fx.Node] = set()
    stack = [output]
    while stack:
        node = stack.pop()
        if node in needed or node in given or "value" in node.meta:
            continue
        if node.op == "placeholder":
            raise ValueError(
                f"The region of {output.name} reaches the network's input {node.name}; its inputs are incomplete."
            )
        needed.add(node)
        stack.extend(node.all_input_nodes)
    return edit.in_order(needed)


@torch.no_grad()
def evaluate(
    graph_module: fx.GraphModule, nodes: Iterable[fx.Node], values: dict[fx.Node, Any], output: fx.Node
) -> Any:
    """Value of a node when the nodes in ``values`` have the given values.

    Raises:
        EmptyError: the output has no elements.
    """
    nodes = list(nodes)
    with FastDepthwise():
        return _evaluate(graph_module, nodes, values, output)


def _evaluate(graph_module: fx.GraphModule, nodes: list[fx.Node], values: dict[fx.Node, Any], output: fx.Node) -> Any:
    known: dict[fx.Node, Any] = {**values, **_numbers_before(nodes, values)}

    def load(argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda n: known[n])

    for node in nodes:
        if node.op == "get_attr":
            known[node] = edit.get_attribute(graph_module, str(node.target))
        elif node.op == "call_module":
            known[node] = edit.layer_at(graph_module, str(node.target))(*load(node.args), **load(node.kwargs))
        else:
            known[node] = node.target(*load(node.args), **load(node.kwargs))  # type: ignore[operator]
    result = known[output]
    if isinstance(result, Tensor) and not result.numel():
        raise EmptyError
    return result


def _numbers_before(nodes: Iterable[fx.Node], given: Iterable[fx.Node]) -> dict[fx.Node, Any]:
    given = set(given)
    return {n: n.meta["value"] for node in nodes for n in node.all_input_nodes if "value" in n.meta and n not in given}


def _shapes_to_try(
    full: list[tuple[int, ...]], sizes: tuple[tuple[int, int], ...], *, one_image: bool
) -> list[list[tuple[int, ...]]]:
    """Shapes for the inputs of a region, small ones first; where the small ones do not fit, the next are tried.

    Args:
        full: shapes in the network.
        sizes: of images, small ones first.
        one_image: whether images alone may be cut to the first one of the batch.
    """
    alone = one_image and all(len(s) == 4 for s in full) and len({s[0] for s in full}) == 1
    tried = [[_image(s, size, 1 if alone else s[0]) for s in full] for size in sizes]
    tried.append(
        [(s[0], *(min(d, m) for d, m in zip(s[1:3], _SMALL[0], strict=True)), s[3]) if len(s) == 4 else s for s in full]
    )
    if all(len(s) == 3 for s in full):
        tried.insert(0, [(s[0], min(s[1], _TOKENS), s[2]) for s in full])
    tried.append(full)
    return [candidate for i, candidate in enumerate(tried) if candidate not in tried[:i]]


def _image(shape: tuple[int, ...], size: tuple[int, int], batch: int) -> tuple[int, ...]:
    if len(shape) != 4:
        return shape
    return (batch, shape[1], *(min(d, m) for d, m in zip(shape[2:], size, strict=True)))


def _random_values(match: Match, wanted: list[tuple[int, ...]]) -> dict[fx.Node, Tensor]:
    values = {}
    for i, (node, shape) in enumerate(zip(match.inputs, wanted, strict=True)):
        value = torch.randn(shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        values[node] = value.abs() if node in match.nonnegative else value
    return values
