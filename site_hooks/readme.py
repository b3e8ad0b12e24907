"""The table of the README that is made from measured results, written into it between two marks.

After the results have changed:

    python site_hooks/readme.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # so that the parts find each other

from tables import table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cifar_speedups.json"
BETWEEN = re.compile(r"(?<=<!-- made by site_hooks/readme.py -->\n).*?(?=<!-- end -->)", re.DOTALL)
NETWORKS = {"resnet20": "ResNet-20", "resnet56": "ResNet-56"}
POINTS = {"0.5": "0.5 points", "1": "1 point", "2": "2 points"}


def fastest() -> str:
    """Per network and target, the fastest network that was made within each requirement."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["fastest_within"]
    header = ("Network", "Target", "Ships", "Speed-up is", *POINTS.values())
    return table(header, [_row(row) for row in rows if row["network"] in NETWORKS])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    speedups = (row[f"within_{points}_points"] for points in POINTS)
    cells = ("none" if speedup is None else f"{speedup:.2f}x" for speedup in speedups)
    return NETWORKS[row["network"]], f"`{row['target']}`", row["ships"], row["grade"], *cells


def filled(readme: str) -> str:
    """The README with the table as the results say it."""
    return BETWEEN.sub(lambda _: fastest(), readme)


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
