"""TFLite models of single layers, and what is said in other words for the Edge TPU."""

from __future__ import annotations

import numpy as np
import pytest

from fupruner.graph.layer_shape import LayerShape

pytest.importorskip("ai_edge_litert", reason="needs LiteRT: pip install 'fupruner[targets]'")

from fupruner.targets.edge_tpu.convert import open_interpreter, run_interpreter
from fupruner.targets.edge_tpu.flatbuffer import operators_of, sampled
from fupruner.targets.litert_cpu.small_models import _Model, build, can_build, cut_out

CONV = LayerShape("conv", (8, 9, 9), (16, 5, 5), (3, 3), (2, 2), (1, 1), (1, 1), activation="relu", fused_add=True)
LAYERS = [
    CONV,
    LayerShape("conv", (8, 9, 9), (8, 9, 9), (3, 3), (1, 1), (1, 1), (1, 1), groups=8, activation="re_lu6"),
    LayerShape("conv", (8, 9, 9), (8, 9, 9), (3, 3), (1, 1), (1, 1), (1, 1), groups=2),
    LayerShape("linear", (8,), (3,)),
    LayerShape("add", (8, 9, 9), (8, 9, 9), inputs=2, activation="relu"),
    LayerShape("mul", (8, 9, 9), (8, 9, 9), inputs=2),
    LayerShape("max_pool2d", (8, 8, 8), (8, 4, 4), (2, 2), (2, 2), (0, 0)),
    LayerShape("avg_pool2d", (8, 8, 8), (8, 4, 4), (2, 2), (2, 2), (0, 0)),
    LayerShape("adaptive_avg_pool2d", (8, 8, 8), (8, 1, 1)),
    LayerShape("re_lu", (8, 8, 8), (8, 8, 8)),
    LayerShape("pad", (8, 8, 8), (8, 10, 10)),
]


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.kind}-{layer.groups}")
def test_layer_becomes_a_model_that_runs(layer: LayerShape, int8: bool) -> None:
    assert can_build(layer)
    interpreter = open_interpreter(build(layer, int8=int8))
    for entry in interpreter.get_input_details():
        assert entry["dtype"] == (np.int8 if int8 else np.float32)
        interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
    interpreter.invoke()
    (out,) = interpreter.get_output_details()
    assert int(np.prod(out["shape"])) == int(np.prod(layer.out_shape))
    assert sum(op.macs for op in operators_of(build(layer, int8=int8))) == layer.macs


@pytest.mark.parametrize(
    "layer",
    [
        LayerShape("conv_transpose", (8, 9, 9), (8, 18, 18), (2, 2), (2, 2), (0, 0)),
        LayerShape("conv", (8, 9), (8, 9), (3,), (1,), (1,)),
        LayerShape("max_pool2d", (8, 9, 9), (8, 5, 5), (3, 3), (2, 2), (1, 1)),
        LayerShape("adaptive_avg_pool2d", (8, 8, 8), (8, 2, 2)),
        LayerShape("conv", (8, 9, 9), (8, 9, 9), (3, 3), (1, 1), (1, 1), (1, 1), activation="hardswish"),
        LayerShape("linear", (5, 8), (5, 3)),
    ],
)
def test_other_layers_are_priced_otherwise(layer: LayerShape) -> None:
    assert not can_build(layer)


def test_operators_of_a_file_run_alone() -> None:
    whole = build(CONV, int8=True)
    parts = cut_out(whole)
    assert [operators_of(part)[0].kind for part in parts] == ["PAD", "CONV_2D", "ADD"]
    assert sum(op.macs for part in parts for op in operators_of(part)) == CONV.macs
    for part in parts:
        interpreter = open_interpreter(part)
        for entry in interpreter.get_input_details():
            interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
        interpreter.invoke()


def sliced(begin: list[int], end: list[int], strides: list[int], shape: tuple[int, ...], **masks: int) -> bytes:
    model = _Model(int8=False)
    numbers = [model.numbers(np.array(values)) for values in (begin, end, strides)]
    settings = {"beginMask": 0, "endMask": 0, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 0, **masks}
    return model.content(
        model.operator("STRIDED_SLICE", [model.entry((1, 6, 6, 4)), *numbers], shape, "StridedSliceOptions", **settings)
    )


@pytest.mark.parametrize(
    ("begin", "end", "strides", "shape", "masks"),
    [
        ([0, 0, 0, 0], [1, 6, 6, 4], [1, 2, 1, 1], (1, 3, 6, 4), {}),
        ([0, 0, 0, 0], [1, 6, 6, 4], [1, 1, 3, 1], (1, 6, 2, 4), {}),
        ([0, 5, 0, 0], [0, 0, 0, 0], [1, 2, 2, 1], (1, 3, 3, 4), {"beginMask": 2, "endMask": 15}),
    ],
)
def test_every_nth_pixel_becomes_a_pool(
    begin: list[int], end: list[int], strides: list[int], shape: tuple[int, ...], masks: dict[str, int]
) -> None:
    before = sliced(begin, end, strides, shape, **masks)
    after = sampled(before)
    assert [op.kind for op in operators_of(after)] == ["MAX_POOL_2D"]
    image = np.random.default_rng(0).standard_normal((1, 4, 6, 6)).astype(np.float32)
    expected, found = (run_interpreter(open_interpreter(model), image)[0] for model in (before, after))
    assert np.array_equal(expected, found)


@pytest.mark.parametrize(
    ("begin", "end", "strides", "shape", "masks"),
    [
        ([0, 1, 0, 0], [1, 6, 6, 4], [1, 2, 1, 1], (1, 3, 6, 4), {}),  # from the second pixel on
        ([0, 0, 0, 0], [1, 4, 6, 4], [1, 2, 1, 1], (1, 2, 6, 4), {}),  # not to the end
        ([0, 0, 0, 0], [1, 6, 6, 4], [1, 1, 1, 2], (1, 6, 6, 2), {}),  # every second channel
    ],
)
def test_other_slices_stay(
    begin: list[int], end: list[int], strides: list[int], shape: tuple[int, ...], masks: dict[str, int]
) -> None:
    assert [op.kind for op in operators_of(sampled(sliced(begin, end, strides, shape, **masks)))] == ["STRIDED_SLICE"]
