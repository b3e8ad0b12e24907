from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from fupruner.cli import inputs
from fupruner.errors import InputError


def write_onnx(path: Path, shape: list[int | str]) -> Path:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "test", [value], [result])
    onnx.save(helper.make_model(graph), str(path))
    return path


def test_example_is_the_same_each_time_and_leaves_the_global_seed_alone() -> None:
    before = torch.get_rng_state()
    (first,) = inputs.example_inputs((3, 5, 7))
    (second,) = inputs.example_inputs((3, 5, 7))
    assert first.shape == (1, 3, 5, 7)
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_given_shape_comes_before_the_known_one() -> None:
    assert inputs.shape_of_inputs((3, 32, 32), "1x8x8", "m") == (1, 8, 8)
    assert inputs.shape_of_inputs((3, 32, 32), None, "m") == (3, 32, 32)


@pytest.mark.parametrize("text", ["3x", "3,32,32", "0x1x1", "x", ""])
def test_shape_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match="must be sizes joined by x"):
        inputs.shape_of_inputs(None, text, "m")


def test_unknown_shape_asks_for_the_flag() -> None:
    with pytest.raises(InputError) as caught:
        inputs.shape_of_inputs(None, None, "mine:net")
    assert "mine:net" in caught.value.args[0]
    assert "--input-shape" in caught.value.hint


def test_run_folder_may_be_new_or_empty(tmp_path: Path) -> None:
    assert inputs.new_folder(tmp_path) == tmp_path
    assert inputs.new_folder(tmp_path / "new") == tmp_path / "new"
    assert not (tmp_path / "new").exists()


def test_run_folder_that_is_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty"):
        inputs.new_folder(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        inputs.new_folder(tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_file_to_write_is_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    for name, message in (
        ("a.txt", "must end in"),
        ("folder.onnx", "is a folder"),
        ("nowhere/a.onnx", "there is no folder"),
    ):
        with pytest.raises(InputError, match=message):
            inputs.new_file(tmp_path / name, (".onnx", ".pt2"))
    assert inputs.new_file(tmp_path / "a.onnx", (".onnx",)) == tmp_path / "a.onnx"


def test_shape_is_read_from_the_file(tmp_path: Path) -> None:
    assert inputs.onnx_input_shape(write_onnx(tmp_path / "a.onnx", ["batch", 3, 32, 33])) == (3, 32, 33)


def test_open_sizes_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="open size"):
        inputs.onnx_input_shape(write_onnx(tmp_path / "a.onnx", ["batch", 3, "height", "width"]))
    (tmp_path / "b.onnx").write_bytes(b"this is not a network")
    with pytest.raises(InputError, match=r"b\.onnx"):
        inputs.onnx_input_shape(tmp_path / "b.onnx")


def test_run_folder_stands_for_its_network(tmp_path: Path) -> None:
    write_onnx(tmp_path / "model.onnx", [1, 3])
    assert inputs.shipped_file(tmp_path) == tmp_path / "model.onnx"
    with pytest.raises(InputError, match="There is no file"):
        inputs.shipped_file(tmp_path / "other.onnx")


def test_result_must_not_replace_the_input(tmp_path: Path) -> None:
    given = tmp_path / "model.onnx"
    given.write_bytes(b"x")
    with pytest.raises(InputError, match="is the network that was given"):
        inputs.not_the_input(tmp_path / "." / "model.onnx", str(given))
    inputs.not_the_input(tmp_path / "other.onnx", str(given))
    inputs.not_the_input(None, str(given))
