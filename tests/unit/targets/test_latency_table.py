from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import pytest

from fupruner.graph.layer_shape import LayerShape
from fupruner.targets import latency_table
from fupruner.targets.latency_table import LatencyTable
from fupruner.targets.price_cache import PriceCache
from fupruner.targets.profiler import NodeTime, typical


def conv(before: int, after: int, size: int, **options: object) -> LayerShape:
    return LayerShape("conv", (before, size, size), (after, size, size), (3, 3), (1, 1), (1, 1), (1, 1), **options)  # type: ignore[arg-type]


def plain(kind: str, before: tuple[int, ...], after: tuple[int, ...] | None = None, inputs: int = 1) -> LayerShape:
    return LayerShape(kind, before, after or before, bias=False, inputs=inputs)


ALL_KINDS = [
    conv(3, 16, 16, activation="relu"),
    conv(3, 8, 16, activation="relu6"),
    conv(16, 16, 16, activation="relu", fused_add=True),
    conv(22, 20, 9, activation="clip"),
    conv(32, 32, 9, groups=32),
    LayerShape("conv", (8, 33), (12, 17), (3,), (2,), (1,), (1,)),
    LayerShape("conv_transpose", (8, 9, 9), (6, 18, 18), (3, 3), (2, 2), (1, 1), (1, 1)),
    plain("linear", (64,), (10,)),
    plain("linear", (5, 64), (5, 10)),
    plain("add", (16, 8, 8), inputs=2),
    plain("mul", (16, 8, 8), inputs=2),
    plain("cat", (16, 8, 8), (37, 8, 8), inputs=3),
    LayerShape("max_pool2d", (16, 9, 9), (16, 5, 5), (3, 3), (2, 2), (1, 1)),
    LayerShape("avg_pool2d", (16, 8, 8), (16, 4, 4), (2, 2), (2, 2), (0, 0)),
    plain("adaptive_avg_pool2d", (16, 8, 8), (16, 1, 1)),
    plain("adaptive_avg_pool2d", (16, 8, 8), (16, 2, 4)),
    plain("mean", (16, 8, 8), (16,)),
    plain("pad", (16, 8, 8), (20, 9, 10)),
    plain("batch_norm2d", (16, 8, 8)),
    *(plain(kind, (16, 8, 8)) for kind in ("re_lu", "hardswish", "si_lu", "sigmoid", "leaky_re_lu", "p_re_lu")),
]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FUPRUNER_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Lets sheets run shortly and keeps count of them."""
    count: list[float] = []
    real = latency_table.node_times

    def quick(model: bytes, inputs: list[object], *, threads: int, seconds: float) -> list[NodeTime]:
        count.append(seconds)
        return real(model, inputs, threads=threads, seconds=0.01)  # type: ignore[arg-type]

    monkeypatch.setattr(latency_table, "node_times", quick)
    return count


def test_every_kind_has_a_price_of_its_own(sheets: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operator that really ran is given a millisecond, so that a layer without any would have no price."""
    ran = latency_table.node_times

    def a_millisecond_each(model: bytes, inputs: list[object], *, threads: int, seconds: float) -> list[NodeTime]:
        nodes = ran(model, inputs, threads=threads, seconds=seconds)  # type: ignore[arg-type]
        return [dataclasses.replace(node, ms=1.0) for node in nodes]

    monkeypatch.setattr(latency_table, "node_times", a_millisecond_each)
    assert [layer.kind for layer in ALL_KINDS if not latency_table.can_build(layer)] == []
    prices = LatencyTable().price(ALL_KINDS)
    assert len(prices) == len(ALL_KINDS)
    assert [layer.kind for layer, price in zip(ALL_KINDS, prices, strict=True) if price < 1] == []
    assert len(sheets) == 1


def test_prices_are_kept_and_not_measured_again(sheets: list[float]) -> None:
    layers = [conv(16, 16, 8), conv(16, 32, 8), conv(16, 16, 8)]
    first = LatencyTable()
    prices = first.price(layers)
    assert prices[0] == prices[2]
    assert first.price(layers[::-1]) == prices[::-1]
    assert LatencyTable().price(layers) == prices
    assert len(sheets) == 1
    LatencyTable().price([*layers, conv(16, 48, 8)])
    assert len(sheets) == 2
    assert LatencyTable(threads=2).threads == 2


def test_layers_are_spread_over_sheets_by_weight(sheets: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_table, "SHEET_BYTES", 300_000)
    LatencyTable().price([conv(128, 128, 4), conv(128, 112, 4), conv(112, 128, 4)])
    assert len(sheets) == 3


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"times": {"a": "x"}}', '{"times": {"a": -1}}', '{"times": {"a": NaN}}']
)
def test_corrupt_cache_is_logged_and_rebuilt(content: str, caplog: pytest.LogCaptureFixture) -> None:
    layer = conv(16, 16, 8)
    path = PriceCache("here", 1).path
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        cache = PriceCache("here", 1)
        assert cache.get(layer) is None
        cache.add({layer: 0.5})
    assert "will be measured again" in caplog.text
    assert PriceCache("here", 1).get(layer) == 0.5
    assert json.loads(path.read_text())["source"] == "here"


def test_two_processes_keep_each_others_prices() -> None:
    one, two = PriceCache("here", 1), PriceCache("here", 1)
    one.add({conv(16, 16, 8): 1.0})
    two.add({conv(16, 32, 8): 2.0})
    assert PriceCache("here", 1).get(conv(16, 16, 8)) == 1.0
    assert PriceCache("here", 2).get(conv(16, 16, 8)) is None


def test_cache_that_cannot_be_written_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FUPRUNER_CACHE_DIR", str(tmp_path / "file"))
    cache = PriceCache("here", 1)
    cache.add({conv(16, 16, 8): 1.0})
    assert cache.get(conv(16, 16, 8)) == 1.0


def test_kind_without_a_builder_is_priced_by_its_elements(sheets: list[float]) -> None:
    small, large = plain("erfinv", (16, 64, 64)), plain("erfinv", (64, 64, 64))
    table = LatencyTable()
    prices = table.price([small, large, plain("erfinv", (1,))])
    assert prices[1] == pytest.approx(4 * prices[0])
    assert prices[2] > 0
    assert len(sheets) == 1


def test_a_layer_gets_the_reorders_before_it_but_not_those_after() -> None:
    first = [
        ("p0_nchwc", "Conv", 9),
        ("Reorder", "ReorderOutput", 1),
        ("q0_nchwc", "Conv", 4),
        ("R2", "ReorderOutput", 2),
    ]
    second = [("s1_0_nchwc", "Conv", 9), ("p1", "MaxPool", 9), ("q1", "Relu", 5), ("t1_nchwc", "Pool", 9)]
    names = [*first, ("t0", "ReduceMean", 9), *second]
    nodes = [NodeTime(name, kind, float(ms)) for name, kind, ms in names]
    assert latency_table._times(nodes, 2) == [5.0, 5.0]


def test_typical_times_leave_out_the_slow_and_the_disturbed_block() -> None:
    assert typical([1.0] * 6 + [9.0] * 4 + [7.0] * 10 + [1.0] * 10) == 1.0


def test_later_sheets_are_brought_to_the_pace_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real, pace = latency_table._times, [1.0]
    monkeypatch.setattr(latency_table, "_times", lambda found, count: [pace[0] for _ in real(found, count)])
    table = LatencyTable()
    assert table.price([conv(16, 16, 8)]) == [1.0]
    pace[0] = 2.0  # the machine now takes twice as long for everything
    assert table.price([conv(16, 32, 8)]) == [1.0]
