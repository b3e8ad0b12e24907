"""What networks are judged by, and how its figures are written."""

from __future__ import annotations

from fupruner.records.base import Record


class Metric(Record):
    """What networks are judged by; higher is better.

    Attributes:
        name: as it stands inside a sentence: accuracy, mean IoU, mAP.
        unit: behind its figures; differences of percentages are points. Empty for a plain number.
    """

    name: str = "accuracy"
    unit: str = "%"

    def text(self, value: float) -> str:
        """Write a figure with its unit: 91.25 %, 0.8412."""
        return f"{value:.2f} %" if self.unit == "%" else f"{value:.4g} {self.unit}".rstrip()

    def difference(self, value: float, *, signed: bool = True) -> str:
        """Write a difference with its sign, or its size alone: +0.50 points, -0.0031."""
        sign = "+" if signed else ""
        return f"{value:{sign}.2f} points" if self.unit == "%" else f"{value:{sign}.4g} {self.unit}".rstrip()

    def allowance(self, value: float) -> str:
        """Write a requirement: 1 point of accuracy, 0.02 of mean IoU."""
        unit = ("point" if value == 1 else "points") if self.unit == "%" else self.unit
        return " ".join(filter(None, (f"{value:g}", unit, "of", self.name)))

    @property
    def title(self) -> str:
        """Write the name as a line begins with it: Accuracy, Mean IoU; an abbreviation stays: mAP."""
        first = self.name.split(" ")[0]
        return first.capitalize() + self.name[len(first) :] if first.islower() else self.name

    @property
    def axis(self) -> str:
        """Write the title of an axis: accuracy, %."""
        return f"{self.name}, {self.unit}" if self.unit else self.name
