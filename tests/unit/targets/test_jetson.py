from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from fupruner.errors import TargetError
from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.jetson import era
from fupruner.targets.jetson.cost import NANO, NANO_PACE, seconds
from fupruner.targets.jetson.target import jetson_nano, jetson_tx2
from fupruner.targets.jetson.trtexec import parse_log, parse_profile, read_run
from fupruner.targets.side_env import find_python

IMAGE = torch.randn(1, 3, 16, 16)

LOG = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # /usr/src/tensorrt/bin/trtexec --loadEngine=model.plan
[11/24/2025-10:00:00] [I] === Performance summary ===
[11/24/2025-10:00:00] [I] Throughput: 86.5 qps
[11/24/2025-10:00:00] [I] Latency: min = 11.4 ms, max = 14.25 ms, mean = 11.6 ms, median = 11.55 ms, percentile(99%) = 13.0 ms
[11/24/2025-10:00:00] [I] Enqueue Time: min = 1.1 ms, max = 2.5 ms, mean = 1.4 ms, median = 1.3 ms, percentile(99%) = 2.2 ms
[11/24/2025-10:00:00] [I] H2D Latency: min = 0.05 ms, max = 0.09 ms, mean = 0.06 ms, median = 0.06 ms, percentile(99%) = 0.08 ms
[11/24/2025-10:00:00] [I] GPU Compute Time: min = 11.2 ms, max = 14.0 ms, mean = 11.5 ms, median = 11.375 ms, percentile(99%) = 12.9 ms
&&&& PASSED TensorRT.trtexec [TensorRT v8201] # /usr/src/tensorrt/bin/trtexec --loadEngine=model.plan
"""
PROFILE = json.dumps(
    [
        {"count": 200},
        {
            "name": "Reformatting CopyNode for Input Tensor 0 to Conv_0 + Relu_1",
            "timeMs": 4.0,
            "averageMs": 0.02,
            "percentage": 1.7,
        },
        {"name": "Conv_0 + Relu_1", "timeMs": 180.0, "averageMs": 0.9, "percentage": 78.3},
        {"name": "/fc/Gemm_12", "timeMs": 46.0, "averageMs": 0.23, "percentage": 20.0},
    ]
)


def test_latency_is_read_from_the_summary() -> None:
    times = parse_log(LOG)
    assert (times.median, times.mean, times.least, times.most, times.host_median) == (11.375, 11.5, 11.2, 14.0, 11.55)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("", "printed no summary of GPU Compute Time"),
        (LOG.replace("GPU Compute Time", "GPU time"), "no summary of GPU Compute Time"),
        (LOG.replace("median = 11.375", "median = 99"), "contradict each other"),
        (LOG.replace("median = 11.375 ms", "median = 0 ms"), "contradict each other"),
        ("[E] 2: [virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory", "ran out of memory"),
        (
            "[I] start\n[E] Engine could not be created\n&&&& FAILED TensorRT.trtexec",
            "trtexec failed: Engine could not be created",
        ),
    ],
)
def test_output_that_is_no_latency_is_never_a_number(log: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        parse_log(log)


def test_profile_is_read_layer_by_layer() -> None:
    layers = parse_profile(PROFILE)
    assert [(layer.kind, layer.ms) for layer in layers] == [("Reformat", 0.02), ("Conv", 0.9), ("Gemm", 0.23)]
    assert {layer.grade for layer in layers} == {"measured"}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '[{"count": 3}]', '[{"name": "a"}]', '[{"name": "a", "averageMs": "soon"}]', "[3]"]
)
def test_profile_that_is_something_else_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="profile of trtexec"):
        parse_profile(text)


def test_missing_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"model\.log"):
        read_run(tmp_path / "model.log", tmp_path / "model.profile.json")


def test_export_writes_what_the_device_reads(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    result = jetson_nano().export(module, (torch.cat([IMAGE, IMAGE]),), tmp_path / "net.onnx")
    model = onnx.load(str(result.files[0]))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    assert model.ir_version == 7
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 16, 16]
    assert result.files[1].name == "net.sh"
    assert 0 < result.max_error < 0.01


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Conv1d(3, 4, 3)), r"cannot build Conv '.*': only 2D and 3D are supported"),
        (
            nn.Upsample(scale_factor=2, mode="bicubic"),
            r"cannot build Resize '.*': mode cubic is not supported.\nIn the model, use nearest",
        ),
    ],
)
def test_form_that_tensorrt_lacks_is_named(module: nn.Module, message: str, tmp_path: Path) -> None:
    images = torch.randn(1, 3, 16) if isinstance(module, nn.Sequential) else IMAGE
    with pytest.raises(TargetError, match=message):
        jetson_tx2().export(module, (images,), tmp_path / "net.onnx")


def test_operator_that_tensorrt_lacks_is_named(tmp_path: Path) -> None:
    class Remainder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fmod(x, 2.0)

    with pytest.raises(
        TargetError,
        match=r"The Jetson TX2 \(TensorRT 8\.2\) has no operator Mod, which layer '.*Mod' needs\.\nIn the model, use Sub",
    ):
        jetson_tx2().export(Remainder(), (IMAGE,), tmp_path / "net.onnx")


def test_network_too_large_for_the_device_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = jetson_nano()
    monkeypatch.setattr(target, "_device", type(NANO)(NANO.operations, NANO.bandwidth, memory=1000))
    with pytest.raises(TargetError, match=r"needs .* GB in half precision; the Jetson Nano has 0\.0 GB for it"):
        target.export(nn.Conv2d(3, 8, 3), (IMAGE,), tmp_path / "net.onnx")


def run_script(folder: Path, trtexec: str) -> subprocess.CompletedProcess[str]:
    jetson_nano().export(nn.Conv2d(3, 4, 3), (IMAGE,), folder / "net.onnx")
    tool = folder / "trtexec"
    tool.write_text(trtexec)
    tool.chmod(0o755)
    return subprocess.run(
        ["sh", str(folder / "net.sh")],
        capture_output=True,
        text=True,
        env={**os.environ, "TRTEXEC": str(tool)},
        check=False,
        timeout=30,
    )


def test_script_builds_times_and_profiles(tmp_path: Path) -> None:
    fake = f"""#!/bin/sh
for argument in "$@"; do
    case $argument in
        --saveEngine=*) : > "${{argument#--saveEngine=}}" ;;
        --exportProfile=*) cat > "${{argument#--exportProfile=}}" <<'END'
{PROFILE}
END
        ;;
    esac
done
cat <<'END'
{LOG}END
"""
    done = run_script(tmp_path, fake)
    assert done.returncode == 0, done.stderr
    assert "median = 11.375 ms" in done.stdout
    assert (tmp_path / "net.plan").exists()
    times, layers = read_run(tmp_path / "net.log", tmp_path / "net.profile.json")
    assert times.median == 11.375
    assert len(layers) == 3


def test_script_says_what_failed(tmp_path: Path) -> None:
    done = run_script(tmp_path, "#!/bin/sh\necho '[E] no space left'\nexit 3\n")
    assert done.returncode == 1
    assert "no space left" in done.stderr


def test_script_without_the_tool_says_how_to_get_it(tmp_path: Path) -> None:
    jetson_nano().export(nn.Conv2d(3, 4, 3), (IMAGE,), tmp_path / "net.onnx")
    done = subprocess.run(
        ["sh", str(tmp_path / "net.sh")],
        capture_output=True,
        text=True,
        env={**os.environ, "TRTEXEC": "/nowhere/trtexec"},
        check=False,
    )
    assert done.returncode == 2
    assert "install JetPack 4.6" in done.stderr


def conv(inputs: int, outputs: int, size: int = 28, kernel: int = 3, groups: int = 1) -> LayerShape:
    return LayerShape(
        "conv", (inputs, size, size), (outputs, size, size), (kernel,) * 2, (1, 1), (kernel // 2,) * 2, (1, 1), groups
    )


def test_channels_are_paid_for_in_eights() -> None:
    cost = [seconds(conv(256, outputs), NANO, NANO_PACE) for outputs in (57, 60, 64, 65)]
    assert cost[0] == pytest.approx(cost[2], rel=0.01)
    assert cost[3] > 1.05 * cost[2]


def test_depthwise_is_slower_per_operation() -> None:
    depthwise, full = conv(256, 256, groups=256), conv(256, 256)
    assert seconds(depthwise, NANO, NANO_PACE) / depthwise.macs > 5 * seconds(full, NANO, NANO_PACE) / full.macs


@pytest.fixture(scope="module")
def old_runtime() -> None:
    if era.ENVIRONMENT.interpreter is None:
        if find_python("3.6") is None:
            pytest.skip("needs Python 3.6 (PATH or pyenv) for ONNX Runtime 1.10")
        era.ENVIRONMENT.install()


@pytest.mark.slow
@pytest.mark.usefixtures("old_runtime")
def test_runtime_of_the_same_years_loads_the_file(tmp_path: Path) -> None:
    target = jetson_tx2()
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    result = target.export(module, (IMAGE,), tmp_path / "net.onnx")
    assert [fact.value for fact in target.inspect(result.files[0])] == ["yes, output 1x4"]
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(TargetError, match=r"ONNX Runtime 1\.10, Python 3\.6 refuses"):
        era.check(tmp_path / "broken.onnx")
