"""Which speed-ups to try: a bracket between the fastest one that met the requirement and the slowest that did not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fupruner.attempt import Outcome, Setting, run_attempt
from fupruner.errors import InputError
from fupruner.finish import keep
from fupruner.records import Figures
from fupruner.runs.run_folder import RunFolder

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


def search(setting: Setting, run: RunFolder, baseline: Figures) -> list[Outcome]:
    """Try speed-ups; with an asked speed-up, that one alone.

    Args:
        setting: of the run.
        run: where attempts are recorded.
        baseline: the original, on the data that the search looks at.

    Returns:
        The outcomes that meet the requirement there and are faster than the original, the fastest first; with an asked
        speed-up its outcome in any case.
    """
    bracket, good, outcomes = Bracket(), list[Outcome](), list[Outcome]()
    for number in range(1, (1 if setting.options.speedup else setting.options.attempts) + 1):
        asked = setting.options.speedup or bracket.next()
        if asked is None:
            break
        try:
            outcome = run_attempt(setting, number, asked)
        except InputError as error:
            if setting.options.speedup:
                raise
            setting.progress.note(str(error).splitlines()[0])
            bracket.tell(asked, satisfied=False)
            continue
        outcomes.append(outcome)
        satisfied = baseline.accuracy - outcome.figures.accuracy <= setting.options.max_drop
        bracket.tell(asked, satisfied=satisfied)
        _record(setting, run, baseline, outcomes)
        if satisfied and outcome.speedup > max([1.0, *(o.speedup for o in good)]):  # never slower than the original
            keep(setting, run, outcome)
        if satisfied and outcome.speedup > 1:
            good.append(outcome)
    if setting.options.speedup:
        return outcomes
    return sorted(good, key=lambda outcome: -outcome.speedup)


def _record(setting: Setting, run: RunFolder, baseline: Figures, outcomes: list[Outcome]) -> None:
    """Write what is known after each attempt."""
    rows: list[dict[str, Any]] = [
        {
            "attempt": o.history.attempt, "asked_speedup": o.history.asked_speedup, "speedup": o.speedup,
            "accuracy": o.figures.accuracy, "drop": baseline.accuracy - o.figures.accuracy,
            "satisfied": baseline.accuracy - o.figures.accuracy <= setting.options.max_drop,
            "latency_ms": o.figures.latency_ms, "macs": o.figures.macs, "params": o.figures.params,
        }
        for o in outcomes
    ]  # fmt: skip
    run.write("attempts.json", rows)
    run.write("history.json", [o.history for o in outcomes])
    run.event("attempt", **rows[-1])
    metric = setting.task.metric
    verdict = "meets" if rows[-1]["satisfied"] else "misses"
    setting.progress.note(
        f"attempt {rows[-1]['attempt']}: {rows[-1]['speedup']:.2f}x {setting.target.grade}, {metric.text(rows[-1]['accuracy'])} "
        f"({metric.difference(-rows[-1]['drop'])}): {verdict} the requirement"
    )
