"""What ``import fupruner`` gives, and what it must not cost."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import fupruner

FUNCTIONS = {"optimize", "fuse", "prune", "export", "measure", "load", "resume", "show_progress"}
HEAVY = (
    "datasets",
    "lightning_fabric",
    "onnx",
    "onnxruntime",
    "optuna",
    "plotly",
    "pydantic",
    "rich",
    "scipy",
    "tensorboard",
    "typer",
)


def test_functions_are_public() -> None:
    assert set(fupruner.__all__) >= FUNCTIONS | {"FuPrunerError", "InputError"}


def test_all_names_exist_and_are_documented() -> None:
    for name in fupruner.__all__:
        thing = getattr(fupruner, name)
        assert isinstance(thing, str) or inspect.getdoc(thing), name


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("fuse", ["model", "example_inputs", "level"]),
        ("prune", ["model", "example_inputs", "ratio", "speedup", "target"]),
        ("prune", ["importance", "data", "fusion"]),
        ("export", ["module", "example_inputs", "path", "target"]),
        ("measure", ["path_or_module", "example_inputs", "target"]),
        ("optimize", ["model", "example_inputs", "task", "target", "max_drop", "speedup", "epochs", "out"]),
    ],
)
def test_arguments_are_a_contract(function: str, arguments: list[str]) -> None:
    assert set(inspect.signature(getattr(fupruner, function)).parameters) >= set(arguments)


def test_import_is_light() -> None:
    code = f"import sys, fupruner; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
