"""Finds targets by name: the built-in ones, and those that other packages announce as entry points.

A third-party target is one file and one line in its package's ``pyproject.toml``::

    [project.entry-points."fupruner.targets"]
    my-board = "my_package.my_board:MyBoardTarget"

The entry point names a class (or a function) that is called without arguments and gives a ``Target``.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from fupruner.errors import NotAvailableError, TargetError, unknown_name
from fupruner.targets.base import Target

GROUP = "fupruner.targets"

BUILT_IN = tuple(
    EntryPoint(name=name, value=f"fupruner.targets.{value}", group=GROUP)
    for name, value in (
        ("cpu", "cpu:CpuTarget"),
        ("edge-tpu", "edge_tpu.target:EdgeTpuTarget"),
        ("jetson-nano", "jetson.target:jetson_nano"),
        ("jetson-tx2", "jetson.target:jetson_tx2"),
        ("ncs", "myriad.target:ncs"),
        ("ncs2", "myriad.target:ncs2"),
    )
)

NOT_YET = ("openvino-cpu", "litert-cpu")


def target_names() -> tuple[str, ...]:
    """Names that ``get_target`` accepts, sorted."""
    return tuple(sorted(_available()))


def get_target(name: str) -> Target:
    """Make the target of this name.

    Raises:
        NotAvailableError: the device is known, but this version cannot serve it yet.
        InputError: the name is unknown; the hint gives the nearest known ones.
        TargetError: the package that brings the target is broken.
    """
    available = _available()
    if name in available:
        return _load(available[name])
    if name in NOT_YET:
        raise NotAvailableError(
            f"Target {name!r} is not available in this version; available: {', '.join(sorted(available))}."
        )
    raise unknown_name("target", name, [*available, *NOT_YET])


def _available() -> dict[str, EntryPoint]:
    """All targets by name; a built-in name cannot be taken over by another package."""
    return {point.name: point for point in (*entry_points(group=GROUP), *BUILT_IN)}


def _load(point: EntryPoint) -> Target:
    try:
        target = point.load()()
    except Exception as error:
        raise TargetError(
            f"Target {point.name!r} ({point.value}) cannot be loaded: {error}",
            hint="Repair or uninstall the package that provides it.",
        ) from error
    if not isinstance(target, Target):
        raise TargetError(f"Target {point.name!r} ({point.value}) is a {type(target).__name__}, not a Target.")
    return target
