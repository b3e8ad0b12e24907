"""From a network, a target and a fusion level to gates and a planner for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from torch import Tensor, fx

from fupruner.errors import InputError
from fupruner.fusion.fuse import adds_into_filters, fuse_graph
from fupruner.fusion.rules.clean_up import RemoveNoOp
from fupruner.graph import shapes
from fupruner.graph.cost import is_add
from fupruner.graph.layer_shape import LayerShape
from fupruner.pruning.gates import GatedNetwork, insert_gates
from fupruner.pruning.plan import Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.reserving import reserved_blocks
from fupruner.records import FusionLog
from fupruner.targets.base import Target
from fupruner.targets.cost_model import CostModel

BESIDE_WEIGHTS = 0.99
"""Share of a chip's room that is left for weights beside biases, which are wider."""


def make_planner(
    graph: fx.GraphModule, inputs: tuple[Tensor, ...], target: Target, fusion: FusionLog, *, shipping: float = 1.0, fit: bool = False,
    share_tensors: bool = False,
) -> tuple[GatedNetwork, Planner]:  # fmt: skip
    """Gates in a fresh copy of a graph, and a planner for them on a target.

    Args:
        graph: a canonical graph; it is not modified.
        inputs: tensors, batch first.
        target: decides what pays.
        fusion: of fusing the graph; what ships is fused at the same level.
        shipping: of the unpruned network, see ``verify.shipping_speedup``.
        fit: whether the weights have to fit on the target's chip.
        share_tensors: let the gated network use the graph's own weights; for networks that are not trained.

    Raises:
        InputError: they have to, and the target has no such limit.
    """
    shapes.propagate(graph, inputs)
    cost_model, level = target.cost_model(), fusion.level
    reserved = reservable(graph, inputs, fusion, cost_model, max(1, target.alignment // 2))
    network = insert_gates(graph, activations=level != "none", reserved=reserved, share_tensors=share_tensors)
    pricer = Pricer(network, cost_model, "fused" if level == "aggressive" else "cheaper")
    room = room_on_chip(target) if fit else None
    return network, Planner(network, pricer, target.name, target.alignment, target.precision, shipping, room)


def room_on_chip(target: Target) -> float:
    """Bytes of weights that a plan may leave so that the shipped file fits on the target's chip.

    Raises:
        InputError: the target has no such limit.
    """
    if target.on_chip_bytes is None:
        raise InputError(
            f"Target {target.name} has no limit of what fits on its chip.", hint="Ask for a speed-up instead."
        )
    return BESIDE_WEIGHTS * target.on_chip_bytes


def fuse_as_planned(
    network: GatedNetwork, slimmed: fx.GraphModule, inputs: tuple[Tensor, ...], level: str, cost_model: CostModel
) -> tuple[fx.GraphModule, FusionLog]:
    """Fuse what was cut from a network in the form that its plan priced.

    Args:
        network: its gates are as they were when it was cut.
        slimmed: what was cut from it; shortcuts with gates become filters however much their blocks grow by it.
        inputs: tensors, batch first.
        level: of fusion; at ``none`` too what pruning has left idle goes, such as the activation behind a closed branch.
        cost_model: of the target, for ``auto``.
    """
    if level == "none":
        fused, log = fuse_graph(slimmed, inputs, "basic", only=(RemoveNoOp.name,))
        return fused, log.model_copy(update={"level": level})
    adds = {node.name for node in slimmed.graph.nodes if is_add(node)}
    planned = [shortcut for shortcut, _ in network.shortcuts if shortcut.branch.add.name in adds]
    keep = {s.branch.add.name: range(len(s.group.units)) for s in planned}
    return fuse_graph(slimmed, inputs, level, cost_model=cost_model, keep=keep)


def reservable(
    graph_module: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    fusion: FusionLog,
    cost_model: CostModel,
    bundle: int,
) -> frozenset[str]:
    """Names of the Adds whose shortcuts are worth gates, because fusion would turn what is left of them into filters.

    Args:
        graph_module: a canonical graph whose shapes were propagated.
        example_inputs: tensors, batch first.
        fusion: of fusing it at the level in question. ``auto`` refuses what costs time with all channels of a shortcut; since a
            plan may close some, there everything counts that pays with one bundle of them.
        cost_model: of the target; asked for ``auto`` alone.
        bundle: channels that close together.
    """
    if fusion.level != "auto":
        return adds_into_filters(fusion)
    adds = {n.name for n in graph_module.graph.nodes if is_add(n)}
    network = insert_gates(graph_module, reserved=adds, share_tensors=True)
    paying = adds_that_pay(network, Pricer(network, cost_model).prices, bundle)
    if not paying:
        return frozenset()
    _, all_of_it = fuse_graph(graph_module, example_inputs, "aggressive")
    return adds_into_filters(all_of_it) & paying


def adds_that_pay(
    network: GatedNetwork, prices: Callable[[list[LayerShape | None]], list[float]], bundle: int
) -> set[str]:
    """Names of the Adds that a device would rather have as filters if only a bundle of channels were carried.

    Args:
        network: all shortcuts in question gated.
        prices: of layer shapes, in milliseconds.
        bundle: the smallest number of channels.
    """
    paying = set()
    for block in reserved_blocks(network).values():
        units = block.shortcut.group.units
        is_open = np.ones(network.groups.labelling.units, dtype=bool)
        is_open[units[bundle:]] = False
        shapes = {i: network.layers[i].shape for i in block.layers}
        without = {i: dataclasses.replace(shape, fused_add=False) for i, shape in shapes.items()}
        fused = block.fused(dict(without), is_open)
        if sum(prices(list(fused.values()))) <= sum(prices(list(shapes.values()))):
            paying.add(block.shortcut.branch.add.name)
    return paying
