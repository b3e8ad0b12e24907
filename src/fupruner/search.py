"""Which speed-ups to try: a bracket between the fastest one that met the requirement and the slowest that did not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fupruner.attempt import Outcome, Setting, run_attempt
from fupruner.errors import DivergedError, InputError
from fupruner.finish import keep
from fupruner.records import Figures
from fupruner.runs.run_folder import RunFolder

FIRST = 1.5
"""The first speed-up asked for, over what shipping alone gains."""
STEP = 1.5
"""At most this factor lies between a speed-up that met the requirement and the next, as long as nothing has failed."""
CLOSE = 1.08
"""A gain of less than this factor is not worth another attempt."""
FURTHER = 1.15
"""At least this factor lies between two attempts as long as nothing has failed: what was lost in one of them is uncertain by half a point
on a few thousand images, too much to end a search on, and the last word is spoken on other images in any case."""
AIM = 0.8
"""Share of what may be lost that an attempt is expected to lose: figures of validation data are uncertain."""
LEAST = 0.1
"""A smaller share of it counts as this much; what was measured there is chance."""


@dataclass
class Bracket:
    """Speed-ups, over what shipping alone gains, known to meet the requirement and known not to, with what was lost there.

    What is lost is taken to grow with the square of the logarithm of the speed-up, as a loss that is quadratic in gates does.

    Attributes:
        allowed: what may be lost, in points.
        passed: the largest speed-up that met it; 1 is the original network.
        failed: the smallest that did not, or infinity.
        lost: points lost at ``passed``.
        missed: points lost at ``failed``; infinite where that was out of reach.
    """

    allowed: float
    passed: float = 1.0
    failed: float = math.inf
    lost: float = 0.0
    missed: float = math.inf

    def tell(self, speedup: float, lost: float) -> None:
        """Take in the result of an attempt: points lost, infinite where the speed-up was out of reach."""
        if lost > self.allowed:
            if speedup < self.failed:
                self.failed, self.missed = speedup, lost
        elif speedup > self.passed:
            self.passed, self.lost = speedup, lost

    def next(self) -> float | None:
        """The speed-up to try next, or None when no gain that is worth an attempt can be expected."""
        if self.passed == 1.0 and self.failed == math.inf:
            return FIRST
        likely = self._likely()
        if self.failed == math.inf:
            return max(likely, self.passed * FURTHER)
        if self.passed == 1.0:
            likely = max(likely, CLOSE)
        elif self.failed > self.passed * CLOSE**2:  # by how much it failed is as uncertain: there is room in the middle
            likely = max(likely, math.sqrt(self.passed * self.failed))
        if likely < self.passed * CLOSE or self.failed <= self.passed * CLOSE:
            return None
        return likely

    def _likely(self) -> float:
        """The speed-up at which ``AIM`` of the allowed loss is expected."""
        aim, near = AIM * self.allowed, math.log(self.passed) ** 2
        if self.failed == math.inf:
            lost = max(self.lost, LEAST * self.allowed)
            return min(self.passed * STEP, math.exp(math.sqrt(near * aim / lost))) if lost > 0 else self.passed * STEP
        if self.missed == math.inf:
            return math.sqrt(self.passed * self.failed)
        lost = max(0.0, self.lost)
        share = max(0.0, aim - lost) / (self.missed - lost)
        return math.exp(math.sqrt(near + share * (math.log(self.failed) ** 2 - near)))


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
    bracket, good, outcomes = Bracket(setting.options.max_drop), list[Outcome](), list[Outcome]()
    for number in range(1, (1 if setting.options.speedup else setting.options.attempts) + 1):
        following = bracket.next()
        if following is None:
            break
        asked = setting.options.speedup or setting.shipping * following
        if asked <= 1:  # it ships in a format that is slower than the original's; nothing slower than that is kept
            break
        try:
            outcome = run_attempt(setting, number, asked)
        except (InputError, DivergedError) as error:
            if setting.options.speedup or (isinstance(error, DivergedError) and not outcomes):
                raise
            setting.progress.note(str(error).splitlines()[0])
            bracket.tell(asked / setting.shipping, math.inf)
            continue
        outcomes.append(outcome)
        drop = baseline.accuracy - outcome.figures.accuracy
        satisfied = drop <= setting.options.max_drop
        bracket.tell(asked / setting.shipping, drop)
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
