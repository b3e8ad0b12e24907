"""Saving a network as a ``.pt2`` file that loads with PyTorch alone."""

from __future__ import annotations

import io
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from fupruner.errors import NotEquivalentError
from fupruner.graph.capture import capture
from fupruner.graph.check import FLOAT32_TOLERANCE, relative_error


def save_pt2(module: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> float:
    """Write an exported program with a free batch dimension, load it again and compare.

    Args:
        module: left untouched.
        inputs: example inputs, batch first.
        path: ends in ``.pt2``.

    Returns:
        Largest relative error of the loaded network in its own precision.

    Raises:
        NotEquivalentError: the loaded network computes something else; no file is left behind.
    """
    program, _ = capture(module, inputs)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.pt2")
    try:
        buffer = io.BytesIO()  # a full disk is an OSError then, whatever writes archives
        torch.export.save(program, buffer)
        temporary.write_bytes(buffer.getvalue())
        loaded = torch.export.load(str(temporary)).module()
        with torch.no_grad():
            error = relative_error(program.module()(*inputs), loaded(*inputs))
        if not error <= FLOAT32_TOLERANCE:
            raise NotEquivalentError(
                f"{path} would compute something else than the network: relative error {error:.3g}."
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return error
