"""Which speed-ups to try: a bracket between the fastest one that met the requirement and the slowest that did not."""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST = 1.5
STEP = 1.3
"""The first speed-up asked for, and the factor to the next as long as nothing has failed."""
CLOSE = 1.08
"""A bracket narrower than this factor is not worth another attempt."""


@dataclass
class Bracket:
    """Speed-ups known to meet the requirement and known not to.

    Attributes:
        passed: the largest speed-up that met it; 1 is the original network.
        failed: the smallest that did not, or infinity.
    """

    passed: float = 1.0
    failed: float = math.inf

    def tell(self, speedup: float, *, satisfied: bool) -> None:
        """Take in the result of an attempt."""
        if satisfied:
            self.passed = max(self.passed, speedup)
        else:
            self.failed = min(self.failed, speedup)

    def next(self) -> float | None:
        """The speed-up to try next, or None when the bracket is close enough."""
        if self.failed == math.inf:
            return FIRST if self.passed == 1.0 else self.passed * STEP
        if self.failed / self.passed < CLOSE:
            return None
        return math.sqrt(self.passed * self.failed)
