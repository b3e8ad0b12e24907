"""Results that show themselves as a table: as text at a prompt, as HTML in a notebook."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

MOST_ROWS = 40


@dataclass(frozen=True)
class Tabular:
    """A title, the names of columns, and rows of as many cells; cells are plain text."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Align the columns: names to the left, figures to the right; of very many rows the first are shown."""
        lines = [self.columns, *self.rows[:MOST_ROWS]]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        shown = ["  ".join(_aligned(cell, widths[i], i) for i, cell in enumerate(line)).rstrip() for line in lines]
        rest = len(self.rows) - MOST_ROWS
        return "\n".join([self.title, *shown, *([f"... and {rest} more rows"] if rest > 0 else [])])

    def html(self) -> str:
        """Write the same as an HTML table; every cell is escaped, for names come from models."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows[:MOST_ROWS]
        )
        return f"<table><caption>{html.escape(self.title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


class ShownAsTable(ABC):
    """Base of results whose ``repr`` is a table; dataclasses that inherit it are declared with ``repr=False``."""

    @abstractmethod
    def table(self) -> Tabular:
        """Sum the result up."""

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()
