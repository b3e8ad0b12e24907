"""Commands whose names are settled and whose work is not done yet; they say so."""

from __future__ import annotations

from fupruner.errors import NotAvailableError


def init() -> None:
    """Write a commented options file to start from (not available yet)."""
    raise _not_yet("init", "'fupruner optimize --help' lists every option with its default.")


def _not_yet(name: str, hint: str) -> NotAvailableError:
    return NotAvailableError(f"'fupruner {name}' is not available in this version yet.", hint=hint)
