"""What cannot be imported is refused in words, and no file is changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from fupruner.errors import InputError
from fupruner.onnx_import import import_onnx, importer
from unit.onnx_import.files import model_of, node, random, saved

RELU = [node("Relu")]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        import_onnx(path)
    return str(caught.value)


def refused(folder: Path, nodes: list, **more: object) -> str:
    return refusal(saved(model_of(nodes, **more), folder))


def test_missing_file_and_folder(tmp_path: Path):
    assert f"There is no ONNX file {tmp_path / 'no.onnx'}" in refusal(tmp_path / "no.onnx")
    assert "is a folder, not an ONNX file" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"this is not a network", b"\x80\x02}q\x00.", bytes(100)])
def test_file_that_is_no_onnx(tmp_path: Path, content: bytes):
    (tmp_path / "a.onnx").write_bytes(content)
    assert "a.onnx cannot be read as ONNX" in refusal(tmp_path / "a.onnx")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_file_that_is_cut_short(tmp_path: Path, share: float):
    path = saved(model_of([node("Conv", "x w")], constants={"w": random(6, 3, 3, 3)}), tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cannot be read as ONNX" in refusal(path) or "is not a valid ONNX model" in refusal(path)


def test_every_unsupported_operator_is_named_with_count_and_places(tmp_path: Path):
    nodes = [node("Hardmax", "x", "a", "/e1")]
    nodes += [node("Hardmax", "a", f"b{i}", f"/more{i}") for i in range(3)]
    nodes += [
        node("Det", "b0", "d", ""),
        node("Resize", "b1 - s", "y", "/up", mode="linear", coordinate_transformation_mode="asymmetric"),
    ]
    said = refused(
        tmp_path, nodes, constants={"s": np.float32([1, 1, 2, 2])}, shape=("n", 3, 4, 4), outputs=("y", "d", "b2")
    )
    assert (
        "uses operators that cannot be imported: Det (1x: /d/Det); Hardmax (4x: /e1, /more0, /more1 and 1 more); "
        in said
    )
    assert "Resize with mode linear, asymmetric (1x: /up)" in said
    assert "Replace them in the model, or give the PyTorch model itself." in said


def test_operator_of_another_domain(tmp_path: Path):
    model = model_of([helper.make_node("FusedConv", ["x"], ["y"], "/fused", domain="com.microsoft")])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert "cannot be imported: com.microsoft.FusedConv (1x: /fused)" in refusal(saved(model, tmp_path))


def test_quantised_network(tmp_path: Path):
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    said = refused(tmp_path, nodes, constants={"s": np.float32(0.1), "z": np.uint8(3)})
    assert (
        "is quantised: DequantizeLinear (1x: /dequantizelinear/DequantizeLinear); QuantizeLinear (1x: /q/QuantizeLinear)"
        in said
    )
    assert "Give the float model" in said


def test_control_flow(tmp_path: Path):
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["o"])], "branch", [], [out])
    nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "c", to=TensorProto.BOOL),
             node("If", "c", "y", "/choose", then_branch=branch, else_branch=branch)]  # fmt: skip
    said = refused(tmp_path, nodes)
    assert "has control flow, which cannot be captured: If (1x: /choose)" in said


@pytest.mark.parametrize(
    ("nodes", "constants", "expected"),
    [
        ([node("MaxPool", "x", "y i", kernel_shape=[2, 2])], {}, "MaxPool with indices as an output"),
        ([node("Conv", "x w", pads=[0, 0, -1, 0])], {"w": random(6, 3, 3, 3)}, "Conv with negative pads"),
        ([node("ConvTranspose", "x w", output_shape=[20, 20])], {"w": random(3, 2, 3, 3)}, "ConvTranspose with a given output shape"),
        ([node("Resize", "x - s", mode="nearest", nearest_mode="ceil")], {"s": np.float32([1, 1, 2, 2])},
         "Resize with mode nearest, half_pixel, ceil"),
        ([node("Cast", "x", to=TensorProto.STRING)], {}, "Cast to STRING"),
    ],
)  # fmt: skip
def test_setting_without_a_counterpart(tmp_path: Path, nodes, constants, expected):
    assert expected in refused(tmp_path, nodes, constants=constants)


def test_size_read_from_the_values_of_a_tensor(tmp_path: Path):
    nodes = [node("Abs", "x", "a"), node("ReduceMax", "a", "m", keepdims=1), node("Cast", "m", "i", to=TensorProto.INT64),
             node("Mul", "i zero", "j"), node("Sub", "j one", "s"), node("Reshape", "s minus", "t"), node("Reshape", "x t")]  # fmt: skip
    constants = {"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1])}
    said = refused(tmp_path, nodes, constants=constants)
    assert "A size or an index depends on the values of a tensor" in said
    assert "in Reshape /reshape/Reshape" in said


@pytest.mark.parametrize("opset", [7, 8])
def test_operator_set_that_is_too_old(tmp_path: Path, opset: int):
    assert f"uses operator set {opset}; 9 to" in refused(tmp_path, RELU, opset=opset)


def test_weights_in_another_file_are_read_and_missed(tmp_path: Path):
    model = model_of([node("Conv", "x w")], constants={"w": random(16, 3, 5, 5)})
    path = tmp_path / "m.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    assert torch.equal(import_onnx(path).module.get_submodule("conv").weight, torch.from_numpy(random(16, 3, 5, 5)))
    (tmp_path / "m.data").write_bytes(b"short")
    assert "The weights of" in refusal(path)
    (tmp_path / "m.data").unlink()
    said = refusal(path)
    assert "lie in another file, which cannot be read" in said
    assert "in one folder" in said


def test_model_that_breaks_the_rules_of_onnx(tmp_path: Path):
    assert "is not a valid ONNX model" in refused(tmp_path, [node("Relu", "nowhere")])


def test_no_input(tmp_path: Path):
    assert "has no input" in refused(tmp_path, [node("Relu", "c")], inputs=(), constants={"c": random(3)})


def test_too_many_inputs(tmp_path: Path):
    assert "has 5 inputs; at most 4" in refused(tmp_path, [node("Sum", "a b c d e")], inputs=tuple("abcde"))


def test_import_that_computes_something_else_is_not_returned(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(importer, "error_on", lambda network, sample: 0.5)
    assert "computes something else than in ONNX Runtime: outputs differ by 0.5" in refused(tmp_path, RELU)


def test_file_stays_as_it_is(tmp_path: Path):
    path = saved(
        model_of(
            [node("Conv", "x w")], constants={"w": random(6, 3, 3, 3).astype(np.float16)}, kind=TensorProto.FLOAT16
        ),
        tmp_path,
    )
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    import_onnx(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert list(tmp_path.iterdir()) == [path]


def test_reductions_of_scattered_values_that_have_no_counterpart(tmp_path: Path):
    nodes = [node("ScatterND", "x i u", reduction="max")]
    said = refused(tmp_path, nodes, constants={"i": np.int64([[0]]), "u": random(1, 3, 8, 10)}, opset=18)
    assert "ScatterND with reduction max (1x: /scatternd/ScatterND)" in said
