"""Parts of long work reach whoever watches, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.layer_shape import LayerShape
from fupruner.graph.trace import trace
from fupruner.progress import Advance, Catching, Silent, counted, part, watched_by, watching
from fupruner.targets import latency_table, price_cache
from fupruner.targets.latency_table import LatencyTable
from fupruner.targets.timing import interleave
from fupruner.training.custom import CustomTask
from fupruner.training.data import load_data
from fupruner.training.task import Classification


class Watcher:
    """Remembers what it was told: for each part its name, its total, and how many steps were done."""

    def __init__(self) -> None:
        self.parts: list[list[object]] = []
        self.open = 0

    def stage(self, name: str, total: int | None) -> None: ...
    def advance(self, n: int = 1, **info: float) -> None: ...
    def note(self, line: str) -> None: ...

    @contextmanager
    def part(self, name: str, total: int | None) -> Iterator[Advance]:
        told = [name, total, 0]
        self.parts.append(told)
        self.open += 1

        def advance(steps: int) -> None:
            told[2] += steps  # type: ignore[operator]

        try:
            yield advance
        finally:
            self.open -= 1


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    watcher = Watcher()
    with watched_by(watcher):
        yield watcher
    assert watcher.open == 0


def test_parts_go_to_the_innermost_watcher_and_to_nobody_afterwards() -> None:
    outer, inner = Watcher(), Watcher()
    with watched_by(outer):
        with watched_by(inner), part("inner"):
            pass
        with part("outer", 3) as advance:
            advance(2)
    with part("nobody", 1) as advance:
        advance(1)
    assert (outer.parts, inner.parts) == ([["outer", 3, 2]], [["inner", None, 0]])
    assert isinstance(watching(), Silent)


def test_watching_ends_when_something_is_raised() -> None:
    with pytest.raises(ValueError, match="stop"), watched_by(Watcher()):
        raise ValueError("stop")
    assert isinstance(watching(), Silent)


def test_counted_passes_items_on_and_counts_their_sizes(watcher: Watcher) -> None:
    assert list(counted(["ab", "c"], "letters", 3, len)) == ["ab", "c"]
    assert watcher.parts == [["letters", 3, 3]]


def test_a_resumed_run_tells_of_parts() -> None:
    told = Watcher()
    with Catching(told, lambda: True).part("measure", 4) as advance:
        advance(4)
    assert told.parts == [["measure", 4, 4]]


def test_tracing_and_fusing_are_counted(watcher: Watcher) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    inputs = (torch.randn(1, 3, 8, 8),)
    _, log = fuse_graph(trace(model, inputs), inputs, "basic")
    (traced,) = [told for told in watcher.parts if str(told[0]).startswith("trace")]
    assert traced[1] == traced[2] >= 5  # three layers, input and output
    (fused,) = [told for told in watcher.parts if str(told[0]).startswith("fuse")]
    assert fused[2] == len(log.fired) == 1


def test_calibration_and_judging_are_counted_in_images(watcher: Watcher) -> None:
    task = Classification(load_data("digits"), batch_size=50)
    list(task.calibration_batches(120))
    task.score(lambda images: torch.zeros(len(images), 10))
    assert watcher.parts == [["calibrate, images", 120, 120], ["judge, images", *[len(task.data.validation)] * 2]]


def test_calibration_of_a_task_of_the_users_own_is_counted(watcher: Watcher) -> None:
    batches = [torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, 1)]
    task = CustomTask(
        batches, loss=lambda model, batch: model(batch).mean(), evaluate=lambda model: 0.0, inputs=lambda b: b
    )
    assert len(list(task.calibration_batches(6))) == 2
    assert watcher.parts == [["calibrate, samples", 6, 8]]


def test_filling_a_table_is_counted_in_layers(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("FUPRUNER_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(latency_table, "_seconds", lambda layers: 0.01)
    layers = [LayerShape("conv", (4, 8, 8), (n, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1)) for n in (4, 8)]
    LatencyTable().price([*layers, layers[0]])
    assert watcher.parts == [["fill the latency table, layers", 2, 2]]
    LatencyTable().price(layers)  # known by now
    assert len(watcher.parts) == 1
    assert price_cache.cache_folder() == tmp_path


def test_measuring_is_counted_in_rounds(watcher: Watcher) -> None:
    found = interleave([lambda: None, lambda: None], slot_seconds=1e-4, total_seconds=0.0, least_rounds=3)
    assert watcher.parts == [["measure, rounds", 3, 3]]
    assert found.times.shape == (3, 2)
