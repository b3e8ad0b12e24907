from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from fupruner.errors import TargetError
from fupruner.targets.myriad import compiler
from fupruner.targets.myriad.stage_graph import read_stage_graph
from fupruner.targets.myriad.target import ncs, ncs2
from fupruner.targets.side_env import SideEnvironment, find_python

CONV = (
    r'label="[2 / 3] Stage conv1\ltype = MyriadXHwOp\lorigLayer = [\l    name = conv1\l    type = Convolution\l    precision = FP32\l]\l'
    r"numSHAVEs = 0\lextraAttrs = [\l    hwOpType = CONV\l    tiling = [\l        mode = MODE_8_32\l        cost = 37\l    ]\l"
    r'    withReLU = 1\l]\l"'
)
VIEW = (
    r'label="[-1 / 2] Stage conv1@expand-input\ltype = Expand\lorigLayer = [\l    name = conv1\l    type = Convolution\l]\l'
    r'numSHAVEs = 0\l"'
)
CONVERT = (
    r'label="[0 / 0] Stage input@FP16\ltype = Convert\lnumSHAVEs = 7\lextraAttrs = [\l    bias = 0\l    scale = 1\l]\l"'
)
GRAPH = r'label="Graph main\lbatchSize = 1\lextraAttrs = [\l    usedMemory = [\l        BSS = 6144\l        CMX = 106496\l    ]\l]\l"'


def test_stage_graph_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "stages.dot"
    path.write_text("digraph g {\n" + "\n".join(f"    {line}" for line in (GRAPH, CONV, CONVERT, VIEW)) + "\n}\n")
    graph = read_stage_graph(path)
    assert [stage.name for stage in graph.stages] == ["input@FP16", "conv1@expand-input", "conv1"]
    assert [stage.kind for stage in graph.stages] == ["Convert", "Convolution", "Convolution"]
    assert [stage.executed for stage in graph.stages] == [True, False, True]
    last = graph.stages[-1]
    assert (last.mode, last.cost, last.relu) == ("MODE_8_32", 37, True)
    assert (graph.cost, graph.memory["CMX"], graph.kinds["Convolution"]) == (37, 106496, 2)


def test_dump_without_stages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stages.dot"
    path.write_text("digraph g {\n}\n")
    with pytest.raises(TargetError, match="holds no stage"):
        read_stage_graph(path)
    with pytest.raises(TargetError, match="cannot be read"):
        read_stage_graph(tmp_path / "missing.dot")


def fake(folder: Path, answer: str) -> SideEnvironment:
    """An environment whose Python prints an answer whatever it is asked."""
    environment = SideEnvironment("fake", "3.9", ("nothing==1",))
    python = environment.folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    python.chmod(0o755)
    (environment.folder / "installed.json").write_text("{}")
    return environment


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("Segmentation fault", "printed something unexpected"),
        ('{"version": 1}', "answered something unexpected"),
        (
            json.dumps({"version": "2021", "layers": 3, "missing": [["/erf/Erf", "Erf"]], "error": ""}),
            "The device lacks operators that .*model.onnx needs: Erf '/erf/Erf'",
        ),
        (
            json.dumps({"version": "2021", "layers": 3, "missing": [], "error": "out of CMX"}),
            "refuses .*model.onnx: out of CMX",
        ),
    ],
)
def test_answers_of_the_compiler_that_are_no_success(
    answer: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUPRUNER_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "ENVIRONMENT", fake(tmp_path, answer))
    with pytest.raises(TargetError, match=message):
        compiler.compile_file(tmp_path / "model.onnx", "VPU_MYRIAD_2480")


def test_python_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUPRUNER_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setattr(compiler, "usb_library", lambda: "libusb-1.0.so.0")  # whether this machine has it or not
    with pytest.raises(TargetError, match=r"Python 3\.9 is needed for openvino==2021\.4\.2"):
        ncs2().install()


def test_missing_operator_names_layer_and_replacement(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU())
    with pytest.raises(
        TargetError,
        match=r"The Neural Compute Stick 2 has no operator Erf, which layer '.*' needs\.\nIn the model, use a ReLU",
    ):
        ncs2().export(module, (torch.randn(1, 3, 8, 8),), tmp_path / "model.onnx")


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    module = nn.Conv2d(3, 4, 1)
    torch.nn.init.constant_(module.weight, 1e6)
    with pytest.raises(TargetError, match=r"computes something else than the module(.|\n)*65504"):
        ncs2().export(module, (torch.randn(1, 3, 8, 8),), tmp_path / "model.onnx")


@pytest.fixture(scope="module")
def real() -> None:
    """The real compiler, installed the first time, where its Python is here."""
    if os.environ.get("FUPRUNER_CACHE_DIR") is None and compiler.installed():
        return
    if find_python("3.9") is None or not compiler.usb_library():
        pytest.skip("needs Python 3.9 (PATH or pyenv) and libusb-1.0-0 for the Myriad compiler")
    compiler.ENVIRONMENT.install()


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_real_compiler_makes_the_stages_that_were_predicted(tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 13, 3, 2, 1), nn.ReLU(), nn.Conv2d(13, 32, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    for target in (ncs2(), ncs()):
        result = target.export(module, (torch.randn(1, 3, 32, 32),), tmp_path / "model.onnx")
        shipped = {file.suffix: file for file in result.files}
        assert shipped.keys() in (
            {".onnx", ".blob"},
            {".onnx", ".blob", ".xml", ".bin"},
        )  # IR where the Model Optimizer is here too
        assert shipped[".blob"].read_bytes()[52:56] == (9709).to_bytes(4, "little")
        facts = {fact.name: fact.value for fact in target.inspect(result.files[0])}
        assert facts["stages"].startswith(f"{facts['stages predicted']}, of which")
