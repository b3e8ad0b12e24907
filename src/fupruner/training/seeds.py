"""Seeds for every random decision, so that any step of a training can be repeated without those before it."""

from __future__ import annotations

import numpy as np
import torch


def mix(*parts: int) -> int:
    """One well-spread 63-bit seed from several small numbers, for example seed, epoch and batch."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(*parts: int) -> torch.Generator:
    """A generator on the CPU that is seeded by :func:`mix`."""
    return torch.Generator().manual_seed(mix(*parts))
