from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from fupruner.errors import InputError, NotAvailableError, TargetError
from fupruner.targets import registry
from fupruner.targets.cpu import CpuTarget


class TinyBoard(CpuTarget):
    name = "tiny-board"


def no_target() -> str:
    return "a string"


def broken() -> None:
    raise RuntimeError("driver missing")


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint(name=name, value=f"fake:{attribute}", group=registry.GROUP)
        for name, attribute in (
            ("tiny-board", "TinyBoard"),
            ("odd", "no_target"),
            ("broken", "broken"),
            ("cpu", "broken"),
        )
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.GROUP else [])
    monkeypatch.setattr(
        EntryPoint, "load", lambda point: globals()[point.attr] if point.module == "fake" else CpuTarget
    )


def test_built_in_target_is_found() -> None:
    assert "cpu" in registry.target_names()
    assert isinstance(registry.get_target("cpu"), CpuTarget)


def test_unknown_target_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"Unknown target 'jetson-tx3'\.\nDid you mean jetson-tx2"):
        registry.get_target("jetson-tx3")


@pytest.mark.parametrize("name", registry.NOT_YET)
def test_known_device_without_support_says_so_in_one_line(name: str) -> None:
    with pytest.raises(
        NotAvailableError, match=f"Target '{name}' is not available in this version; available: .*cpu"
    ) as caught:
        registry.get_target(name)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("plug_ins")
def test_target_of_another_package_is_found() -> None:
    assert {"broken", "cpu", "odd", "tiny-board"} <= set(registry.target_names())
    assert registry.get_target("tiny-board").name == "tiny-board"


@pytest.mark.usefixtures("plug_ins")
def test_built_in_name_cannot_be_taken_over() -> None:
    assert isinstance(registry.get_target("cpu"), CpuTarget)


@pytest.mark.usefixtures("plug_ins")
@pytest.mark.parametrize(("name", "message"), [("broken", "driver missing"), ("odd", "is a str, not a Target")])
def test_broken_plug_in_is_named(name: str, message: str) -> None:
    with pytest.raises(TargetError, match=f"Target '{name}' .*{message}"):
        registry.get_target(name)
