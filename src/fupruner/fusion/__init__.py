"""Fusion: rewriting a network into an equivalent one whose non-parametric operators have become filters."""

from fupruner.fusion.calibrated_norms import freeze_reserved, insert_norms, release_reserved
from fupruner.fusion.fuse import fuse_graph

__all__ = ["freeze_reserved", "fuse_graph", "insert_norms", "release_reserved"]
