from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fupruner.errors import InputError, TargetError
from fupruner.targets import cpu, local, timing
from fupruner.targets.cpu import CpuTarget
from fupruner.targets.onnx_file import write_onnx


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.inner(x) + x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


EXAMPLE = (torch.zeros(2, 3, 16, 16),)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{width}.onnx" for width in (16, 32, 64)]
    for width, path in zip((16, 32, 64), paths, strict=True):
        write_onnx(Residual(width), EXAMPLE, path)
    return paths


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        local, "interleave", lambda runs: timing.interleave(runs, slot_seconds=0.001, total_seconds=0.1, least_rounds=3)
    )


def test_file_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "write_onnx", lambda module, inputs, path: write_onnx(Residual(16), inputs, path))
    with pytest.raises(
        TargetError, match=r"m\.onnx computes something else than the module: relative error .* on 2x3x16x16"
    ):
        CpuTarget().export(Residual(16), EXAMPLE, tmp_path / "m.onnx")


def test_reshape_that_fixes_the_batch_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(int(x.shape[0]), -1) * 2

    with pytest.raises(TargetError, match=r"computes something else than the module: .* on 3x3x16x16"):
        CpuTarget().export(Fixed(), EXAMPLE, tmp_path / "m.onnx")


@pytest.mark.parametrize("dynamic", [True, False])
def test_predict_runs_any_number_of_samples(tmp_path: Path, dynamic: bool) -> None:
    module = Residual(8).eval()
    write_onnx(module, EXAMPLE, tmp_path / "m.onnx", dynamic_batch=dynamic)
    inputs = torch.randn(131, 3, 16, 16)
    outputs = CpuTarget().predict(tmp_path / "m.onnx", inputs)
    assert outputs.shape == (131, 10)
    torch.testing.assert_close(outputs, module(inputs).detach(), atol=1e-5, rtol=1e-4)


def test_predict_names_inputs_that_do_not_fit(files: list[Path]) -> None:
    with pytest.raises(TargetError, match="cannot run the file on input 1x4x16x16"):
        CpuTarget().predict(files[0], torch.randn(1, 4, 16, 16))


@pytest.mark.usefixtures("short")
def test_compare_gives_one_entry_per_file_and_one_for_the_first(files: list[Path]) -> None:
    found = CpuTarget().compare([*files, files[0]], EXAMPLE)
    assert len(found.measurements) == len(found.speedups) == len(found.spreads) == 4
    assert (found.speedups[0], found.spreads[0]) == (1.0, 0.0)
    for measurement in found.measurements:
        assert measurement.latency_ms > 0
        assert measurement.runs > 0
        assert (measurement.grade, measurement.target, measurement.threads) == ("measured", "cpu", 1)
        assert measurement.source.startswith("ONNX Runtime ")


def test_compare_without_files_is_refused() -> None:
    with pytest.raises(InputError, match="no file to time"):
        CpuTarget().compare([], EXAMPLE)


def test_file_that_is_no_onnx_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_text("nothing")
    with pytest.raises(TargetError, match=r"bad\.onnx cannot be loaded by ONNX Runtime"):
        CpuTarget().compare([tmp_path / "bad.onnx"], EXAMPLE)


def test_layer_times_name_merged_convolutions_after_the_file(files: list[Path]) -> None:
    times = CpuTarget().layer_times(files[1], EXAMPLE)
    assert sum(layer.ms for layer in times) > 0
    assert all(layer.ms > 0 for layer in times)
    named = [layer.name for layer in times if layer.kind in ("Conv", "FusedConv", "Gemm", "FusedGemm")]
    assert named == ["/stem/Conv", "/inner/Conv", "/head/Gemm"]


def test_alignment_is_a_block_of_channels() -> None:
    assert CpuTarget().alignment in (8, 16)


def test_rounds_interleave_and_medians_ignore_interruptions(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []

    def work(name: str, seconds: float) -> None:
        order.append(name)
        clock[0] += seconds + (1.0 if len(order) % 17 == 0 else 0.0)  # now and then another process takes the core

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    runs = [lambda: work("A", 0.004), lambda: work("B", 0.008)]
    rounds = timing.interleave(runs, slot_seconds=0.04, total_seconds=10, least_rounds=5, most_rounds=5)
    assert rounds.repeats == (10, 5)
    assert rounds.times.shape == (5, 2)
    assert rounds.times[:, 0] / rounds.times[:, 1] == pytest.approx([0.5] * 5)
    assert "".join(order[8:]) == ("A" * 11 + "B" * 6) * 5
