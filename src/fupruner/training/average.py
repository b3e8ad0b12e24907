"""The exponential moving average of a network's weights over the steps of a training (Polyak and Juditsky, 1992).

While the learning rate is high, weights move around the place that they are heading for; their average is closer to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average:
    """Follows a network step by step; with a decay of 0 it is nothing but the network itself.

    After n steps the decay is no more than (1 + n) / (10 + n), so that a short training does not average with where it began.
    Statistics of batch norms are averaged like weights, so the average needs no data of its own.

    Args:
        model: its weights are copied now; to be made before hooks are put on it.
        decay: weight of the average so far against the network as it is now, 0 to below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._mix, use_buffers=True) if decay else None

    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step; the average moves to the network's device."""
        if self._averaged is not None:
            device = next(model.parameters()).device
            if next(self._averaged.parameters()).device != device:
                self._averaged.to(device)
            self._averaged.update_parameters(model)

    def of(self, model: nn.Module) -> nn.Module:
        """The network with the averaged weights, to be judged; the network itself where nothing is averaged."""
        return model if self._averaged is None else self._averaged.module

    @torch.no_grad()
    def settle(self, model: nn.Module) -> None:
        """Give the network the averaged weights for good."""
        if self._averaged is not None and self._averaged.n_averaged > 0:
            model.load_state_dict(self._averaged.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep; empty where nothing is averaged."""
        return {} if self._averaged is None else dict(self._averaged.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        if self._averaged is not None:
            self._averaged.load_state_dict(dict(state))

    def _mix(self, averaged: Any, current: Any, steps: Tensor | int) -> None:
        decay = min(self.decay, (1 + int(steps)) / (10 + int(steps)))
        get_ema_multi_avg_fn(decay)(averaged, current, steps)
