"""What a section of the page may hold: lines, charts, drawings, tables and code, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fupruner.report.drawings import Drawing
from fupruner.report.plotting import Chart


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names its row, columns from ``text_columns`` on hold figures."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    folded: bool = False


@dataclass(frozen=True)
class Snippet:
    """Code that a reader can run."""

    title: str
    code: str


@dataclass(frozen=True)
class Section:
    """A heading with what belongs under it, in this order."""

    anchor: str
    title: str
    lines: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = field(default=())
    snippets: tuple[Snippet, ...] = ()
    drawings: tuple[Drawing, ...] = ()


def present(drawn: dict[str, Chart], *names: str) -> tuple[Chart, ...]:
    """The charts of these names that were drawn."""
    return tuple(drawn[name] for name in names if name in drawn)
