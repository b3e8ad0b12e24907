"""Modes of a network's modules, and the device that it is on: changed for a while and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Whether each module trains is at the end as it was at the beginning."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def stop_training(model: nn.Module) -> None:
    """Put all modules into eval mode, those of exported programs too, which refuse ``eval()``."""
    for module in model.modules():
        module.training = False


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters are; the CPU where there are none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def on_cpu(model: nn.Module) -> Iterator[None]:
    """The model on the CPU, and then back; its parameters stay the same objects."""
    device = device_of(model)
    model.cpu()
    try:
        yield
    finally:
        model.to(device)
