"""How figures are written for people, on the screen and in the report alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from fupruner.records import Figures, FusionLog, LayerTime, Metric, Summary

Row = tuple[str, str, str, str]
ACCURACY = Metric()


def count(number: float) -> str:
    """Write a count with three figures and a unit: 41.2 M, 272 k, 64."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * limit:
            return f"{_three_figures(number / limit)} {unit}"
    return f"{number:.0f}"


def _three_figures(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def layer_name(layer: LayerTime) -> str:
    """The layer of an operator of a file: /layer1.0.conv1/Conv is layer1.0.conv1; other operators keep what tells them apart."""
    name, _, operator = layer.name.lstrip("/").rpartition("/")
    return name if name and operator in ("Conv", "ConvTranspose", "Gemm") else layer.name.lstrip("/")


def milliseconds(value: float) -> str:
    """Write a time with three significant figures: 0.0412 ms, 12.3 ms."""
    digits = next((d for limit, d in ((100, 0), (10, 1), (1, 2), (0.1, 3), (0.01, 4)) if abs(value) >= limit), 5)
    return f"{value:.{digits}f} ms"


def duration(seconds: float) -> str:
    """Write how long something took: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def change(before: float, after: float) -> str:
    """Write a relative change in percent; nothing where there is no 'before'."""
    return f"{100 * (after - before) / before:+.1f} %" if before else ""


def plural(number: int, noun: str) -> str:
    """Write a number with its noun: 1 epoch, 2 epochs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ranges(indices: Sequence[int]) -> str:
    """Write indices with runs joined: 0-7, 12, 14-15."""
    if not indices:
        return ""
    ordered = sorted(indices)
    starts = [ordered[0], *(b for a, b in pairwise(ordered) if b != a + 1)]
    ends = [*(a for a, b in pairwise(ordered) if b != a + 1), ordered[-1]]
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))  # noqa: RUF001


def verdict(summary: Summary, metric: Metric = ACCURACY) -> str:
    """Say in one sentence what was asked and whether it was met."""
    if original_kept(summary):
        return "No faster network met the requirement; the original is kept."
    drop = summary.baseline.accuracy - summary.final.accuracy
    asked = f"at most {metric.allowance(summary.requirement.max_drop)} may be lost"
    size = metric.difference(abs(drop), signed=False)
    moved = f"{size} were lost" if drop > 0 else f"{size} were gained"
    if drop == 0:
        moved = "none was lost"
    met = "Requirement met" if summary.requirement.satisfied else "Requirement NOT met"
    return f"{met}: {asked}; {moved}."


def which_data(*, elsewhere: bool, of_the_search: bool) -> tuple[str, ...]:
    """Say on which validation data figures were taken; nothing where all of it was looked at."""
    if not elsewhere:
        return ()
    if of_the_search:
        return ("These figures are of the half of the validation data that the search looked at.",)
    return ("Judged on the half of the validation data that the search did not look at.",)


def certainty(summary: Summary, metric: Metric = ACCURACY) -> tuple[str, ...]:
    """Say how much of what was lost may be chance; nothing where that is not known."""
    if summary.drop_error is None:
        return ()
    error = metric.difference(summary.drop_error, signed=False)
    return (f"The change in {metric.name} has a standard error of {error}: other images would give another figure.",)


def original_kept(summary: Summary) -> bool:
    """Whether the run ended with the network that it began with."""
    return summary.final == summary.baseline


def before_after(summary: Summary, metric: Metric = ACCURACY) -> list[Row]:
    """List the figures of a run: name, before, after, change."""
    old, new = summary.baseline, summary.final
    gained = new.accuracy - old.accuracy
    return [
        (metric.title, metric.text(old.accuracy), metric.text(new.accuracy), metric.difference(gained)),
        *([("Ships in", summary.baseline_precision, summary.precision, "")] if quantised(summary) else []),
        ("Latency", latency(old), latency(new), change(old.latency_ms, new.latency_ms)),
        ("Speed-up", "1.00x", speedup(summary), ""),
        ("Multiply-adds", count(old.macs), count(new.macs), change(old.macs, new.macs)),
        ("Parameters", count(old.params), count(new.params), change(old.params, new.params)),
    ]


def quantised(summary: Summary) -> bool:
    """Whether what ships is in another number format than the original that it was timed beside."""
    return summary.precision != summary.baseline_precision


def latency(figures: Figures) -> str:
    """Write a latency together with its grade; an estimate is never shown as a measurement."""
    return f"{milliseconds(figures.latency_ms)} ({figures.latency_grade})"


def speedup(summary: Summary) -> str:
    """Write a speed-up; one that was not measured says so."""
    grade = summary.final.latency_grade
    return f"{summary.speedup:.2f}x" + ("" if grade == "measured" else f" ({grade})")


def operators(log: FusionLog) -> list[Row]:
    """List operators by type before and after fusion, then the size of the network."""
    old, new = log.before, log.after
    rows = [
        (
            kind,
            str(old.operators.get(kind, 0)),
            str(new.operators.get(kind, 0)),
            _difference(old.operators, new.operators, kind),
        )
        for kind in sorted({*old.operators, *new.operators})
    ]
    totals = sum(old.operators.values()), sum(new.operators.values())
    return [
        *rows,
        ("all operators", str(totals[0]), str(totals[1]), _signed(totals[1] - totals[0])),
        ("multiply-adds", count(old.macs), count(new.macs), change(old.macs, new.macs)),
        ("parameters", count(old.params), count(new.params), change(old.params, new.params)),
    ]


def _difference(before: dict[str, int], after: dict[str, int], kind: str) -> str:
    return _signed(after.get(kind, 0) - before.get(kind, 0))


def _signed(number: int) -> str:
    return f"{number:+d}" if number else ""
