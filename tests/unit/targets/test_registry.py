from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from fupruner.errors import InputError, TargetError
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


def test_number_format_is_a_target_of_its_own() -> None:
    shipped = registry.get_target("cpu", "int8")
    assert shipped.precision == "int8"
    assert shipped.reference is not None
    assert shipped.reference.precision == "float32"
    assert registry.get_target("cpu", "float32").reference is None
    assert registry.get_target("edge-tpu", "int8").precision == "int8"


@pytest.mark.parametrize(
    ("name", "ship", "message"),
    [
        (
            "jetson-tx2",
            "int8",
            r"Target jetson-tx2 does not ship int8\. Neither GPU computes in INT8 .*\nIt ships float16\.",
        ),
        ("ncs2", "int8", r"Target ncs2 does not ship int8\. .* FP16\.\nIt ships float16\."),
        ("edge-tpu", "float32", r"Target edge-tpu does not ship float32\.\nIt ships int8\."),
        ("cpu", "float16", r"Target cpu does not ship float16\. .*\nIt ships float32 or int8\."),
    ],
)
def test_number_format_that_the_device_lacks_is_refused(name: str, ship: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.get_target(name, ship)


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
