"""Parts of the documentation that are made from the code and from measured results when the site is built.

A page asks for one with a line like ``<!-- generated: results -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # so that the parts find each other
sys.path.insert(0, str(HERE.parent / "src"))  # the code that is documented, not another one that is installed

import measured  # noqa: E402 - needs the paths above
import rules  # noqa: E402
import tables  # noqa: E402

PARTS: dict[str, Callable[[], str]] = {
    "results": measured.results,
    "fusion rules": rules.families,
    "commands": tables.commands,
    "python": tables.python,
    "options": tables.options,
}
MARK = re.compile(r"^<!-- generated: (.+?) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put generated parts where a page asks for them."""
    return MARK.sub(lambda found: PARTS[found[1]](), markdown)
