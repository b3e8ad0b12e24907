"""How a metric's figures are written, and which latencies may be compared."""

from __future__ import annotations

import pytest

from fupruner.records import Comparison, Grade, Measurement, Metric

PERCENT, PLAIN, DECIBEL = Metric(name="mean IoU"), Metric(name="mAP", unit=""), Metric(name="PSNR", unit="dB")


@pytest.mark.parametrize(
    ("metric", "text", "difference", "allowance", "axis", "title"),
    [
        (Metric(), "91.25 %", "-0.50 points", "1 point of accuracy", "accuracy, %", "Accuracy"),
        (PERCENT, "91.25 %", "-0.50 points", "1 point of mean IoU", "mean IoU, %", "Mean IoU"),
        (PLAIN, "91.25", "-0.5", "1 of mAP", "mAP", "mAP"),
        (DECIBEL, "91.25 dB", "-0.5 dB", "1 dB of PSNR", "PSNR, dB", "PSNR"),
    ],
)
def test_figures_carry_their_unit(metric, text, difference, allowance, axis, title):
    assert metric.text(91.25) == text
    assert metric.difference(-0.5) == difference
    assert metric.allowance(1) == allowance
    assert (metric.axis, metric.title) == (axis, title)


def test_differences_are_signed_or_sizes():
    assert Metric().difference(0.5) == "+0.50 points"
    assert PLAIN.difference(0.012, signed=False) == "0.012"


def latency(ms: float, grade: Grade) -> Measurement:
    return Measurement(latency_ms=ms, spread=0.0, grade=grade, source="somewhere", target="a board")


def test_ratio_of_a_measurement_and_an_estimate_is_refused() -> None:
    with pytest.raises(ValueError, match="different grades cannot be compared: estimated, measured"):
        Comparison(measurements=(latency(2, "measured"), latency(1, "estimated")), speedups=(1, 2), spreads=(0, 0))


def test_ratio_of_two_estimates_is_fine() -> None:
    both = (latency(2, "estimated"), latency(1, "estimated"))
    assert Comparison(measurements=both, speedups=(1, 2), spreads=(0, 0)).speedups == (1, 2)
