"""The catalogue in the order in which it is applied; the reason for each place is said here."""

from __future__ import annotations

from collections.abc import Iterable

from fupruner.errors import unknown_name
from fupruner.fusion.rule import Rule
from fupruner.fusion.rules.norm_after import NormAfterLayer
from fupruner.fusion.rules.shortcut import ShortcutIntoFilters

ORDER: tuple[Rule, ...] = (
    NormAfterLayer(),  # first: every other rule is written for layers without norms between them
    ShortcutIntoFilters(),  # last: it adds filters, which no basic rule should have to see
)


def select(level: str, *, only: Iterable[str] = (), without: Iterable[str] = ()) -> list[Rule]:
    """Rules of a level in order.

    Args:
        level: ``none``, ``basic``, ``aggressive`` or ``auto`` (all rules; the caller gives the engine a cost model).
        only: names of rules to keep; all when empty.
        without: names of rules to leave out.

    Raises:
        InputError: a level or rule is unknown; the nearest names are suggested.
    """
    names = {rule.name for rule in ORDER}
    for name in (*only, *without):
        if name not in names:
            raise unknown_name("fusion rule", name, names)
    levels: dict[str, set[str]] = {"none": set(), "basic": {"basic"}, "aggressive": {"basic", "aggressive"}, "auto": {"basic", "aggressive"}}
    if level not in levels:
        raise unknown_name("fusion level", level, levels)
    chosen = set(only) or names
    return [r for r in ORDER if r.level in levels[level] and r.name in chosen and r.name not in set(without)]
