"""Groups of operators that exporters write for one layer become that layer again; near misses stay what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from fupruner.onnx_import import import_onnx
from fupruner.onnx_import.importer import Imported
from unit.onnx_import.files import model_of, node, positive, random, saved


def number(value: float) -> np.ndarray:
    return np.float32(value)


def imported(folder: Path, nodes: list, constants: dict, **more: object) -> Imported:
    return import_onnx(saved(model_of(nodes, constants=constants, **more), folder))


def layers(folder: Path, nodes: list, constants: dict, **more: object) -> list[type]:
    module = imported(folder, nodes, constants, **more).module
    return [type(layer) for layer in module.modules() if layer is not module and type(layer) is not nn.Module]


def gelu(root: float = 2**0.5, half: float = 0.5) -> tuple[list, dict]:
    nodes = [
        node("Div", "x root", "a"),
        node("Erf", "a", "b"),
        node("Add", "b one", "c"),
        node("Mul", "x c", "d"),
        node("Mul", "d half"),
    ]
    return nodes, {"root": number(root), "one": number(1), "half": number(half)}


def hard(last: str = "Mul", low: float = 0.0) -> tuple[list, dict]:
    nodes = [node("Add", "x three", "a"), node("Clip", "a low six", "b")]
    nodes += [node("Mul", "x b", "c"), node("Div", "c six")] if last == "Mul" else [node("Div", "b six")]
    return nodes, {"three": number(3), "low": number(low), "six": number(6)}


def layer_norm(axis: int = -1) -> tuple[list, dict]:
    nodes = [
        node("ReduceMean", "x", "m", axes=[-1]), node("Sub", "x m", "c"), node("Pow", "c two", "p"),
        node("ReduceMean", "p", "v", axes=[axis]),
        node("Add", "v eps", "e"), node("Sqrt", "e", "r"), node("Div", "c r", "n"), node("Mul", "n s", "t"), node("Add", "t b"),
    ]  # fmt: skip
    return nodes, {"two": number(2), "eps": number(1e-5), "s": positive(10), "b": random(10)}


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (gelu(), [nn.GELU]),
        (gelu(half=0.25), []),
        (gelu(root=1.5), []),
        (hard(), [nn.Hardswish]),
        (hard("Div"), [nn.Hardsigmoid]),
        (hard(low=-1.0), [nn.Hardtanh]),
        (layer_norm(), [nn.LayerNorm]),
        (layer_norm(-2), []),
        (([node("Sigmoid", "x", "a"), node("Mul", "x a")], {}), [nn.SiLU]),
        (([node("Relu", "x", "r"), node("Sigmoid", "r", "a"), node("Mul", "x a")], {}), [nn.ReLU, nn.Sigmoid]),
        (([node("HardSigmoid", "x", "a", alpha=1 / 6), node("Mul", "a x")], {}), [nn.Hardswish]),
        (([node("Softplus", "x", "a"), node("Tanh", "a", "b"), node("Mul", "x b")], {}), [nn.Mish]),
        (([node("MatMul", "x w", "a"), node("Add", "b a")], {"w": random(10, 4), "b": random(4)}), [nn.Linear]),
    ],
)
def test_group_becomes_a_layer_or_stays(tmp_path: Path, group, expected):
    assert layers(tmp_path, *group) == expected


def test_bias_goes_into_the_linear_layer(tmp_path: Path):
    constants = {"w": random(10, 4), "b": random(4)}
    joined = imported(tmp_path, [node("MatMul", "x w", "a"), node("Add", "b a")], constants).module
    assert len(joined.steps) == 1
    apart = [node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Mul", "c a")]
    assert len(imported(tmp_path, apart, constants).module.steps) == 3


def test_zeros_around_an_average_pool_count(tmp_path: Path):
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    nodes = [node("Pad", "x p", "a"), node("AveragePool", "a", kernel_shape=[3, 3], strides=[2, 2])]
    module = imported(tmp_path, nodes, {"p": pads}).module
    assert len(module.steps) == 1
    odd = imported(tmp_path, nodes, {"p": np.array([0, 0, 1, 0, 0, 0, 1, 1])}).module
    assert len(odd.steps) == 2
