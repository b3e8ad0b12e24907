"""Fusion: rewriting a network into an equivalent one whose non-parametric operators have become filters."""
