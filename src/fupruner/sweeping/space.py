"""What a sweep varies: options with the values, or the range of values, that they may take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from fupruner.errors import InputError, unknown_name
from fupruner.options import Options, parse_options

Value = float | int | str | bool
FIXED = frozenset({"target", "threads"})
"""Options that decide what a latency means; they are the same for all trials of a sweep."""


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; whole ones where both are whole.

    Attributes:
        log: whether each factor counts alike, instead of each difference.
    """

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = dict[str, tuple[Value, ...] | Range]


def parse_space(given: Mapping[str, Any], options: Mapping[str, Any], source: str) -> Space:
    """Validate what is to be varied.

    Args:
        given: names of options, each with a list of values, or with ``low``, ``high`` and perhaps ``log``.
        options: values of options that are the same for all trials.
        source: where the user wrote it, for messages.

    Raises:
        InputError: nothing varies, an option is unknown or may not vary, or a value is not allowed.
    """
    parse_options(dict(options), source)
    varying = sorted(Options.model_fields.keys() - FIXED)
    if not given:
        raise InputError(f"{source}: the space is empty; nothing varies.", hint=f"May vary: {', '.join(varying)}.")
    space: Space = {}
    for name, values in given.items():
        if name in FIXED:
            raise InputError(
                f"{source}: {name} may not vary: latencies would not compare.",
                hint="Run one sweep for each, and write it under [options].",
            )
        if name not in Options.model_fields:
            raise unknown_name(f"option in the space of {source}", name, varying)
        if name in options:
            raise InputError(f"{source}: {name} is both fixed and varied.", hint="Write it in one of the two places.")
        space[name] = _values(name, values, source)
    return space


def _values(name: str, given: Any, source: str) -> tuple[Value, ...] | Range:
    if isinstance(given, Range):
        given = {"low": given.low, "high": given.high, "log": given.log}
    if isinstance(given, Mapping):
        return _range(name, given, source)
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise InputError(
            f"{source}: space.{name} = {given!r}: must be a list of values, or a range {{ low = ..., high = ... }}."
        )
    values = tuple(getattr(parse_options({name: value}, f"{source}, space"), name) for value in given)
    if len(set(values)) < len(values):
        raise InputError(f"{source}: space.{name} names a value twice: {list(values)}.")
    return values


def _range(name: str, given: Mapping[str, Any], source: str) -> Range:
    where = f"{source}: space.{name} = {dict(given)}"
    if not {"low", "high"} <= given.keys() <= {"low", "high", "log"}:
        raise InputError(f"{where}: a range has low and high, and may have log.")
    low, high, log = given["low"], given["high"], given.get("log", False)
    for bound in (low, high):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise InputError(f"{where}: {bound!r} is not a number.")
        parse_options({name: bound}, f"{source}, space")
    if not low < high:
        raise InputError(f"{where}: low must be less than high.")
    if not isinstance(log, bool) or (log and low <= 0):
        raise InputError(f"{where}: log is true or false, and takes numbers above 0.")
    return Range(low, high, log)


def combinations(space: Space) -> list[dict[str, Value]]:
    """Every combination of the listed values, the last option varying fastest.

    Raises:
        InputError: an option has a range, which has no list of values.
    """
    lists: dict[str, tuple[Value, ...]] = {}
    for name, values in space.items():
        if isinstance(values, Range):
            raise InputError(
                f"A grid needs a list of values for {name}, not a range.",
                hint="List values, or choose method = 'search'.",
            )
        lists[name] = values
    return [dict(zip(lists, chosen, strict=True)) for chosen in product(*lists.values())]
