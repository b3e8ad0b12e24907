from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from fupruner.errors import InputError, TargetError
from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.edge_tpu import compiler, old_runtimes
from fupruner.targets.edge_tpu.compiler import parse_log
from fupruner.targets.edge_tpu.cost import EdgeTpuModel, Pace, elements, network_ms, weight_bytes
from fupruner.targets.edge_tpu.target import EdgeTpuTarget

MIB = 2**20
LOG = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 557 ms.

Input model: model.tflite
Input size: 11.10MiB
Output model: model_edgetpu.tflite
Output size: 11.60MiB
On-chip memory used for caching model parameters: 7.15MiB
On-chip memory remaining for caching model parameters: 512.00KiB
Off-chip memory used for streaming uncached model parameters: 3.62MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 31
Operation log: model_edgetpu.log

Operator                       Count      Status

CONV_2D                        20         Mapped to Edge TPU
ADD                            8          Mapped to Edge TPU
MEAN                           1          Mapped to Edge TPU
FULLY_CONNECTED                1          Mapped to Edge TPU
TRANSPOSE                      1          Operation is otherwise supported, but not mapped due to some unspecified limitation
"""


def test_log_of_the_compiler_is_read() -> None:
    log = parse_log(LOG)
    assert (log.version, log.subgraphs) == ("16.0.384591198", 1)
    assert (log.on_chip, log.remaining, log.off_chip) == (round(7.15 * MIB), 512 * 1024, round(3.62 * MIB))
    assert log.operators[0] == ("CONV_2D", 20, "Mapped to Edge TPU")
    facts = {fact.name: fact.value for fact in compiler.facts(log)}
    assert facts["operators on the device"] == "30 of 31, in 1 part(s)"
    assert facts["parameters streamed at every run"] == "3.62 MiB"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "failed: it printed nothing"),
        ("Edge TPU Compiler version 16\nInvalid model: model.tflite\nModel not quantized\n", "failed: Invalid model"),
        (LOG.replace("Mapped to Edge TPU", "").partition("Operator  ")[0], "printed something unexpected"),
        (LOG.replace("Off-chip memory", "Other memory"), "printed no 'Off-chip memory"),
    ],
)
def test_log_that_is_no_success_is_never_a_number(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        parse_log(text)


def fake_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch, log: str) -> None:
    tool = folder / "edgetpu_compiler"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{log}\nEND\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_operator_left_to_the_host_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(tmp_path, monkeypatch, LOG)
    with pytest.raises(
        TargetError, match=r"leaves operators to the host: TRANSPOSE \(Operation is otherwise supported"
    ):
        compiler.compile_file(tmp_path / "model.tflite", tmp_path)


def test_compiler_that_takes_everything_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(
        tmp_path,
        monkeypatch,
        LOG.replace(
            "Operation is otherwise supported, but not mapped due to some unspecified limitation", compiler.MAPPED
        ),
    )
    assert compiler.compile_file(tmp_path / "model.tflite", tmp_path).subgraphs == 1


def conv(inputs: int, outputs: int) -> LayerShape:
    return LayerShape("conv", (inputs, 8, 8), (outputs, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1))


@pytest.mark.parametrize("widths", [(64, 128, 64), (512, 1024, 512)], ids=["fits", "streams"])
def test_prices_add_up_to_the_estimate_of_the_network(widths: tuple[int, ...]) -> None:
    layers = [conv(3, widths[0]), *(conv(a, b) for a, b in pairwise(widths))]
    size = sum(map(weight_bytes, layers))
    model = EdgeTpuModel(streams=size > 7.65 * MIB)
    total = model.overhead_ms + sum(model.price(layers))
    assert total == pytest.approx(
        network_ms(3 * 64, sum(layer.macs for layer in layers), sum(map(elements, layers)), size)
    )


def test_what_does_not_fit_on_the_chip_is_streamed() -> None:
    full = network_ms(0, 0, 0, round(7.65 * MIB))
    assert full == pytest.approx(Pace().run, rel=1e-4)
    assert network_ms(0, 0, 0, round(8.65 * MIB)) - full == pytest.approx(Pace().streamed, rel=1e-4)


def test_add_behind_a_layer_reads_two_tensors_and_writes_one() -> None:
    plain = conv(8, 16)
    assert elements(plain) == 24 * 64
    assert elements(dataclasses.replace(plain, fused_add=True)) == 24 * 64 + 3 * 16 * 64


def test_large_network_makes_parameters_dear() -> None:
    small, large = nn.Linear(10, 10), nn.Linear(3000, 3000)
    assert EdgeTpuTarget().adapted(small, None).cost_model().overhead_ms > 0
    assert EdgeTpuTarget().adapted(large, None).cost_model().overhead_ms < 0


def test_missing_libraries_are_named(tmp_path: Path) -> None:
    if all(tool.found for tool in EdgeTpuTarget().tools() if tool.needed):
        pytest.skip("the libraries are here")
    with pytest.raises(
        TargetError, match=r"TFLite files need libraries that are not installed(.|\n)*pip install 'fupruner\[targets\]'"
    ):
        EdgeTpuTarget().export(nn.Conv2d(3, 4, 3), (torch.randn(1, 3, 8, 8),), tmp_path / "model.tflite")


@pytest.fixture(scope="module")
def libraries() -> None:
    missing = [tool.name for tool in EdgeTpuTarget().tools() if tool.needed and not tool.found]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'fupruner[targets]'")


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
def test_residual_network_becomes_what_the_device_runs(tmp_path: Path) -> None:
    from fupruner.targets.edge_tpu.flatbuffer import operators_of, read_model

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))

    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1), Block(8, 8, 1), Block(8, 16, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ).eval()  # fmt: skip
    images = torch.randn(32, 3, 32, 32)
    target = EdgeTpuTarget().adapted(module, lambda: images)
    result = target.export(module, (images[:1],), tmp_path / "model.tflite")
    content = result.files[0].read_bytes()
    assert {op.kind for op in operators_of(content)} <= {
        "CONV_2D",
        "PAD",
        "MAX_POOL_2D",
        "ADD",
        "MEAN",
        "FULLY_CONNECTED",
    }
    assert sum(op.macs for op in operators_of(content)) == 745_632
    versions = {
        max(code.builtinCode, code.deprecatedBuiltinCode): code.version for code in read_model(content).operatorCodes
    }
    assert versions == {3: 3, 34: 2, 17: 2, 0: 2, 40: 2, 9: 4}
    expected, found = module(images).detach(), target.predict(result.files[0], images)
    noise = 10 * torch.log10((expected**2).sum() / ((found - expected) ** 2).sum())
    assert noise > 25  # decibels
    for fact in old_runtimes.check(result.files[0]):
        assert "of 256 steps of LiteRT" in fact.value


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1)), r"no operator PADV2(.|\n)*behind a ReLU"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2, 2)),
            "no operator TRANSPOSE_CONV(.|\n)*nearest upsampling",
        ),
    ],
)
def test_operator_that_the_device_lacks_is_named(module: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=message):
        EdgeTpuTarget().export(module, (torch.randn(4, 3, 8, 8),), tmp_path / "model.tflite")


@pytest.mark.usefixtures("libraries")
def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"nothing at all")
    with pytest.raises(TargetError, match="no TFLite file"):
        EdgeTpuTarget().compare([tmp_path / "model.tflite"], ())
    with pytest.raises(InputError, match="Cannot read"):
        EdgeTpuTarget().compare([tmp_path / "missing.tflite"], ())
