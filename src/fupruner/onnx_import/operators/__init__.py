"""The operators that can be imported, one file per family; ``OPERATORS`` is the list."""

from fupruner.onnx_import.node import OPERATORS
from fupruner.onnx_import.operators import activations, arithmetic, indexing, layers, pooling, resize, shapes

__all__ = ["OPERATORS", "activations", "arithmetic", "indexing", "layers", "pooling", "resize", "shapes"]
