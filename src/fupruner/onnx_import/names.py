"""Dotted names of layers from the names that exporters give to nodes and weights."""

from __future__ import annotations

import re
from collections.abc import Iterable

import onnx
from torch import nn

from fupruner.graph.edit import Names


def scope(node: onnx.NodeProto) -> str:
    """Path of the module that a node comes from: ``/layer1/layer1.0/conv1/Conv`` lies in ``layer1.0.conv1``."""
    parts: list[str] = []
    for part in node.name.strip("/").split("/"):
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        elif part:
            parts.append(part)
    if parts and re.fullmatch(rf"{node.op_type}(_\d+)?", parts[-1]):
        parts.pop()
    return ".".join(parts)


class LayerNames:
    """Hands out names of layers, each once.

    Args:
        nodes: all of them, since a module that holds others cannot give its name to a layer.
        weights: names of values that the file stores.
    """

    def __init__(self, nodes: Iterable[onnx.NodeProto], weights: Iterable[str]) -> None:
        self.weights = frozenset(weights)
        scopes = {scope(node) for node in nodes}
        scopes |= {name.rpartition(".")[0] for name in self.weights if name.endswith(".weight")}
        self.holders = {""} | {path[: match.start()] for path in scopes for match in re.finditer(r"\.", path)}
        self.names = Names()

    def of(self, node: onnx.NodeProto) -> str:
        """Name for the layer that a node becomes: that of its weight, else that of its module."""
        owners = (
            name.removesuffix(".weight") for name in node.input if name in self.weights and name.endswith(".weight")
        )
        base = next(owners, "") or scope(node)
        if base in self.holders:
            base = f"{base}.{node.op_type.lower()}".lstrip(".")
        return self.names.fresh(dotted(base))


def dotted(text: str) -> str:
    """A name that can be reached through attributes and hides none of a module's own."""
    parts = [re.sub(r"\W", "_", part, flags=re.ASCII) for part in text.split(".") if part]
    return ".".join(f"{part}_" if hasattr(nn.Module, part) else part for part in parts) or "layer"
