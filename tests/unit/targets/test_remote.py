"""Latency on a device that is reached over ssh: a real server on loopback, with real runtimes and with tools that misbehave."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fupruner.cli.app import app
from fupruner.errors import InputError, TargetError
from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.base import Target
from fupruner.targets.device import harness, tool
from fupruner.targets.registry import get_target

CONV = LayerShape("conv", (16, 8, 8), (16, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu")
EXAMPLE = (torch.zeros(1, 3, 16, 16),)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUPRUNER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tool, "TIMED_SECONDS", 0.1)


def network(width: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, 4),
    ).eval()  # fmt: skip


def elsewhere(name: str, loopback: object, ship: str = "auto") -> Target:
    return get_target(name, ship, f"{loopback.address}{sys.executable}")  # type: ignore[attr-defined]


def export(target: Target, folder: Path, *widths: int) -> list[Path]:
    files = [folder / f"{width} $(id) ' .{i}{target.suffix}" for i, width in enumerate(widths)]
    for width, file in zip(widths, files, strict=True):
        target.export(network(width), EXAMPLE, file)
    return files


def test_cpu_is_timed_there_with_its_layers(loopback: object, tmp_path: Path) -> None:
    target = elsewhere("cpu", loopback)
    files = export(target, tmp_path, 64, 8)
    compared = target.compare(files, EXAMPLE)
    assert compared.speedups[0] == 1
    assert compared.speedups[1] > 0
    measured = compared.measurements[0]
    assert measured.grade == "measured"
    assert measured.source.startswith("ONNX Runtime")
    assert measured.source.endswith(f"@127.0.0.1:{loopback.port})")  # type: ignore[attr-defined]
    assert measured.runs > 9
    layers = target.layer_times(files[0], EXAMPLE)
    assert {"/0/Conv", "/2/Conv"} <= {layer.name for layer in layers}
    assert all(layer.grade == "measured" for layer in layers)


def test_prices_are_measured_there_once_and_kept_by_device(loopback: object, monkeypatch: pytest.MonkeyPatch) -> None:
    model = elsewhere("cpu", loopback).cost_model()
    assert model.grade == "table"
    assert model.source.endswith(f"@127.0.0.1:{loopback.port})")  # type: ignore[attr-defined]
    wide = LayerShape("conv", (64, 8, 8), (64, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu")
    first = model.price([CONV, wide])
    assert min(first) > 0
    again = elsewhere("cpu", loopback).cost_model()
    monkeypatch.setattr("fupruner.targets.ssh.Shell.run", lambda *_: pytest.fail("asked again"))
    assert again.price([CONV, wide]) == first
    assert get_target("cpu").cost_model().source != model.source


def test_int8_is_timed_there_beside_float32(loopback: object, tmp_path: Path) -> None:
    target = elsewhere("cpu", loopback, "int8")
    assert target.reference is not None
    original = tmp_path / "o.onnx"
    target.reference.export(network(32), EXAMPLE, original)
    (shipped,) = export(target, tmp_path, 32)
    assert len(target.compare([original, shipped], EXAMPLE).speedups) == 2
    assert target.cost_model().price([CONV])[0] > 0


def test_bench_says_where_it_was_measured(loopback: object, tmp_path: Path) -> None:
    (file,) = export(get_target("cpu"), tmp_path, 8)
    device = f"{loopback.address}{sys.executable}"  # type: ignore[attr-defined]
    said = CliRunner().invoke(app, ["bench", str(file), "--device", device, "--json"])
    assert said.exit_code == 0, said.output
    measured = json.loads(said.stdout)["measurements"][0]
    assert measured["grade"] == "measured"
    assert f"127.0.0.1:{loopback.port}" in measured["source"]  # type: ignore[attr-defined]


def test_missing_python_and_missing_runtime_are_named(loopback: object, tmp_path: Path) -> None:
    (file,) = export(get_target("cpu"), tmp_path, 8)
    nowhere = get_target("cpu", device=f"{loopback.address}/no/such/python")  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match=r"there is no /no/such/python on the device .*\nInstall it"):
        nowhere.compare([file], EXAMPLE)
    loopback.tool("bare", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # type: ignore[attr-defined] # without packages
    device = f"{loopback.address}{loopback.folder}/bin/bare"  # type: ignore[attr-defined]
    with pytest.raises(
        TargetError, match=r"lacks the runtime: No module .*\nThere, run: .*bare -m pip install onnxruntime"
    ):
        get_target("cpu", device=device).compare([file], EXAMPLE)


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("Segmentation fault", "printed something unexpected: 'Segmentation fault'"),
        ("[1, 2]", "printed something unexpected"),
        ('{"source": "x", "rounds": [[-1.0]], "repeats": [1]}', "gave times that make no sense"),
        ('{"source": "x", "rounds": [], "repeats": []}', "gave times that make no sense"),
        ('{"source": "x", "rounds": [[1.0, 2.0]], "repeats": [1]}', "gave times that make no sense"),
        ('{"source": "x", "rounds": [["fast"]], "repeats": [1]}', "gave times that make no sense"),
        ('{"rounds": [[1.0]]}', "did not say which runtime"),
        ('{"error": "RuntimeError: no Neural Compute Stick is plugged in"}', "no Neural Compute Stick is plugged in"),
    ],
)
def test_unexpected_answer_is_never_a_number(loopback: object, tmp_path: Path, printed: str, message: str) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"anything")
    loopback.tool("strange", f"#!/bin/sh\ncat <<'END'\n{printed}\nEND\n")  # type: ignore[attr-defined]
    device = f"{loopback.address}{loopback.folder}/bin/strange"  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match=message):
        get_target("cpu", device=device).compare([file], EXAMPLE)


TRTEXEC = """#!/bin/sh
for a in "$@"; do case $a in
  --exportProfile=*) echo '[{"count": 10}, {"name": "/0/Conv + /1/Relu", "averageMs": 0.25},
{"name": "/2/Conv", "averageMs": 0.5}]' > "${a#*=}";;
  --saveEngine=*) echo plan > "${a#*=}";;
  --loadEngine=*) case $a in *file000*) t=2;; *) t=1;; esac
    echo "[01/01] [I] GPU Compute Time: min = $t.0 ms, max = $t.4 ms, mean = $t.2 ms, median = $t.1 ms, percentile(99%) = $t.3 ms";;
esac; done
"""


def test_jetson_builds_engines_and_times_them_in_turn(loopback: object, tmp_path: Path) -> None:
    loopback.tool("trtexec", TRTEXEC)  # type: ignore[attr-defined]
    target = get_target("jetson-nano", device=loopback.address)  # type: ignore[attr-defined]
    files = export(target, tmp_path, 16, 8)
    compared = target.compare(files, EXAMPLE)
    assert [m.latency_ms for m in compared.measurements] == [2.1, 1.1]
    assert {m.grade for m in compared.measurements} == {"measured"}
    assert compared.measurements[0].source.startswith("TensorRT on Jetson Nano")
    layers = target.layer_times(files[0], EXAMPLE)
    assert [(layer.kind, layer.ms) for layer in layers] == [("Conv", 0.25), ("Conv", 0.5)]
    learnt = target.cost_model()
    first = LayerShape("conv", (3, 16, 16), (16, 16, 16), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu")
    assert learnt.price([first]) == [0.25]
    assert learnt.grade == "estimated"
    assert learnt.price([CONV])[0] != get_target("jetson-nano").cost_model().price([CONV])[0]


def test_jetson_without_trtexec_or_memory_says_so(loopback: object, tmp_path: Path) -> None:
    target = get_target("jetson-nano", device=loopback.address)  # type: ignore[attr-defined]
    (file,) = export(target, tmp_path, 8)
    with pytest.raises(TargetError, match=r"there is no trtexec \(JetPack 4\.6"):
        target.compare([file], EXAMPLE)
    loopback.tool("trtexec", "#!/bin/sh\necho '[E] Cuda failure: 2'; exit 1\n")  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match="ran out of memory"):
        target.compare([file], EXAMPLE)
    loopback.tool("trtexec", "#!/bin/sh\necho hello\n")  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match="printed no summary"):
        target.compare([file], EXAMPLE)


def test_target_without_a_tool_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--device board: must be ssh://"):
        get_target("cpu", device="board")


def test_harness_times_in_rounds() -> None:
    calls: list[str] = []
    rounds, repeats = harness.interleave([lambda: calls.append("a"), lambda: calls.append("b")], 0.1)
    assert len(rounds[0]) == len(repeats) == 2
    assert len(rounds) >= 9
    assert all(ms > 0 for row in rounds for ms in row)
    assert harness.median([3, 1, 2]) == 2
    assert harness.median([4, 1, 2, 3]) == 2.5


def with_fakes(loopback: object, tmp_path: Path, modules: dict[str, str]) -> str:
    """An address whose Python finds these modules first."""
    for name, text in modules.items():
        file = tmp_path / "fakes" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        (file.parent / "__init__.py").touch()
    loopback.tool("faked", f'#!/bin/sh\nPYTHONPATH={tmp_path}/fakes exec {sys.executable} "$@"\n')  # type: ignore[attr-defined]
    return f"{loopback.address}{loopback.folder}/bin/faked"  # type: ignore[attr-defined]


STICK = """
import time
class Entry:
    class input_data: shape = [1, 3, 16, 16]
class Request:
    def get_perf_counts(self):
        return {"/0/Conv": {"status": "EXECUTED", "layer_type": "Convolution", "real_time": 250},
                "gone": {"status": "OPTIMIZED_OUT", "layer_type": "Relu", "real_time": 0}}
class Loaded:
    requests = [Request()]
    def infer(self, feeds): time.sleep(0.001)
class Network:
    input_info = {"input": Entry()}
class IECore:
    available_devices = ["CPU", "MYRIAD.1.2-ma2480"]
    def read_network(self, name): return Network()
    def load_network(self, network, device, settings): return Loaded()
def get_version(): return "2021.4.2-3976"
"""


def test_stick_is_timed_with_its_stages(loopback: object, tmp_path: Path) -> None:
    device = with_fakes(loopback, tmp_path, {"openvino/inference_engine.py": STICK})
    target = get_target("ncs2", device=device)
    (file,) = export(target, tmp_path, 16)
    (measured,) = target.compare([file], EXAMPLE).measurements
    assert 1 < measured.latency_ms < 100
    assert measured.source.startswith("OpenVINO 2021.4.2 on MYRIAD")
    assert [(layer.name, layer.ms) for layer in target.layer_times(file, EXAMPLE)] == [("/0/Conv", 0.25)]
    first = LayerShape("conv", (3, 16, 16), (16, 16, 16), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu")
    assert target.cost_model().price([first]) == [0.25]


def test_stick_that_is_not_plugged_in_is_named(loopback: object, tmp_path: Path) -> None:
    text = STICK.replace(', "MYRIAD.1.2-ma2480"', "")
    device = with_fakes(loopback, tmp_path, {"openvino/inference_engine.py": text})
    (file,) = export(get_target("ncs2"), tmp_path, 8)
    with pytest.raises(TargetError, match="no Neural Compute Stick is plugged in"):
        get_target("ncs2", device=device).compare([file], EXAMPLE)


TPU = """
import time, numpy
def load_delegate(name): return name
class Interpreter:
    def __init__(self, model_path, experimental_delegates):
        assert open(model_path, "rb").read() == b"compiled" and experimental_delegates == ["libedgetpu.so.1"]
    def allocate_tensors(self): pass
    def get_input_details(self): return [{"index": 0, "shape": [1, 16, 16, 3], "dtype": numpy.int8}]
    def set_tensor(self, index, values): pass
    def invoke(self): time.sleep(0.001)
"""


def test_edge_tpu_is_timed_with_files_compiled_here(
    loopback: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = with_fakes(loopback, tmp_path, {"tflite_runtime/interpreter.py": TPU})
    file = tmp_path / "net.tflite"
    file.write_bytes(b"not compiled")
    target = get_target("edge-tpu", device=device)
    with pytest.raises(TargetError, match="edgetpu_compiler is not installed"):
        target.compare([file], EXAMPLE)
    monkeypatch.setattr(
        "fupruner.targets.edge_tpu.compiler.compile_file",
        lambda model, folder: (folder / f"{model.stem}_edgetpu.tflite").write_bytes(b"compiled"),
    )
    compared = target.compare([file, file], EXAMPLE)
    assert {m.grade for m in compared.measurements} == {"measured"}
    assert 1 < compared.measurements[0].latency_ms < 100


def test_openvino_is_timed_there(loopback: object, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'fupruner[openvino]'")
    target = elsewhere("openvino-cpu", loopback)
    files = export(target, tmp_path, 64, 8)
    compared = target.compare(files, EXAMPLE)
    assert compared.measurements[0].source.startswith("OpenVINO")
    assert any(layer.kind == "Convolution" for layer in target.layer_times(files[0], EXAMPLE))
    assert target.cost_model().price([CONV])[0] > 0


def test_litert_is_timed_there(loopback: object, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs LiteRT: pip install 'fupruner[targets]'")
    from fupruner.targets.litert_cpu.small_models import build

    file = tmp_path / "net.tflite"
    file.write_bytes(build(LayerShape("conv", (8, 9, 9), (16, 5, 5), (3, 3), (2, 2), (1, 1), (1, 1)), int8=True))
    target = elsewhere("litert-cpu", loopback)
    assert target.compare([file], EXAMPLE).measurements[0].source.startswith("LiteRT")
    assert [layer.kind for layer in target.layer_times(file, EXAMPLE)] == ["PAD", "CONV_2D"]
    wide = LayerShape("conv", (64, 8, 8), (64, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu")
    assert min(target.cost_model().price([CONV, wide])) > 0
