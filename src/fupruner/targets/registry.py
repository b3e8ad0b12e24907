"""Finds targets by name: the built-in ones, and those that other packages announce as entry points.

A third-party target is one file and one line in its package's ``pyproject.toml``::

    [project.entry-points."fupruner.targets"]
    my-board = "my_package.my_board:MyBoardTarget"

The entry point names a class (or a function) that is called without arguments and gives a ``Target``.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from fupruner.errors import InputError, TargetError, unknown_name
from fupruner.targets.base import Target

GROUP = "fupruner.targets"

BUILT_IN = tuple(
    EntryPoint(name=name, value=f"fupruner.targets.{value}", group=GROUP)
    for name, value in (
        ("cpu", "cpu:CpuTarget"),
        ("edge-tpu", "edge_tpu.target:EdgeTpuTarget"),
        ("jetson-nano", "jetson.target:jetson_nano"),
        ("jetson-tx2", "jetson.target:jetson_tx2"),
        ("litert-cpu", "litert_cpu.target:LiteRtTarget"),
        ("ncs", "myriad.target:ncs"),
        ("ncs2", "myriad.target:ncs2"),
        ("openvino-cpu", "openvino_cpu.target:OpenVinoTarget"),
    )
)


def target_names() -> tuple[str, ...]:
    """Names that ``get_target`` accepts, sorted."""
    return tuple(sorted(_available()))


def get_target(name: str, ship: str = "auto", device: str | None = None) -> Target:
    """Make the target of this name.

    Args:
        name: one of ``target_names()``.
        ship: number format of the shipped file; ``auto`` for the target's own.
        device: address of a machine on which latency is measured, see ``ssh.Address``; None for what is here.

    Raises:
        InputError: the name is unknown (the hint gives the nearest known ones), or the device does not run the number format.
        TargetError: the package that brings the target is broken.
    """
    available = _available()
    if name in available:
        target = _shipping(_load(available[name]), ship)
        return target if device is None else _elsewhere(target, device)
    raise unknown_name("target", name, available)


def _elsewhere(target: Target, device: str) -> Target:
    from fupruner.targets.remote import on_device  # noqa: PLC0415 - only where a device was named

    return on_device(target, device)


def _shipping(target: Target, ship: str) -> Target:
    """The target in the number format that was asked for."""
    if ship in ("auto", target.precision):
        return target
    maker = target.formats.get(ship, "")
    if not isinstance(maker, str):
        return maker()
    can = [target.precision, *(name for name, value in target.formats.items() if not isinstance(value, str))]
    raise InputError(
        f"Target {target.name} does not ship {ship}. {maker}".rstrip(), hint=f"It ships {' or '.join(can)}."
    )


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
