"""Builds run folders with made-up figures, for tests of the report only."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from fupruner.options import Options, write_options
from fupruner.records import (
    DecisionRecord,
    EpochRecord,
    Fact,
    Figures,
    Fired,
    FusionLog,
    GraphFigures,
    GraphNode,
    GraphRecord,
    History,
    LayerTime,
    Move,
    Plan,
    Refusal,
    Requirement,
    Shipped,
    Summary,
)
from fupruner.report.data import Attempt, Graphs, LayerTimes

NASTY = "stem.<script>alert(1)</script>"
DECISIONS = 4
LONG = "backbone.features.stage_with_a_long_name.3.residual_branch.conv_project"


def layer_names(layers: int) -> list[str]:
    """Names as a residual network has them, one nasty and one long."""
    return [NASTY, LONG, *(f"layer{1 + i // 18}.{i % 18 // 2}.conv{1 + i % 2}" for i in range(layers - 2))]


def build_run(folder: Path, layers: int = 20, epochs: int = 6, satisfied: bool = True) -> Path:
    """Write every file that a finished run has."""
    folder.mkdir(parents=True)
    names = layer_names(layers)
    _write(folder / "result.json", summary(satisfied, epochs))
    _write(folder / "plan.json", plan(names))
    _write(folder / "fusion.json", fusion(names))
    _write(folder / "fusion_after.json", fusion(names[:1]))
    _write_all(folder / "decisions.json", decisions(1))
    (folder / "versions.json").write_text(json.dumps({"FuPruner": "0.0.0+test", "PyTorch": "9.9.9+made-up"}))
    _write(folder / "graphs.json", Graphs(before=graph(names, norms=True), fused=graph(names)))
    _write(folder / "graph_after.json", graph(names[: layers // 2]))
    _write(folder / "layer_times.json", layer_times(names))
    write_options(Options(speedup=2.0, seed=7), folder / "options.toml")
    _write_all(folder / "history.json", [history(1, epochs), history(2, epochs), history(3, epochs)])
    _write_all(folder / "attempts.json", attempts(satisfied))
    _write(folder / "shipped.json", shipped())
    events = [{"time": "2000-01-01T00:00:00", "event": "started", "model": "TestNet"}]
    events += [{"time": f"2000-01-01T00:00:0{i}", "event": "test event", "number": i} for i in range(3)]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def shipped() -> Shipped:
    facts = {
        name: (Fact(name="stages", value=f"{n} & more", source="made-up compiler"),)
        for name, n in (("before", 40), ("after", 29))
    }
    return Shipped(
        files=("model.onnx", "model.blob"), ships="ONNX", precision="float16", judged_in="a made-up runtime", recipe="run model.onnx",
        **facts,
    )  # fmt: skip


def summary(satisfied: bool = True, epochs: int = 6) -> Summary:
    final = 90.4 if satisfied else 85.0
    return Summary(
        requirement=Requirement(max_drop=1.0, satisfied=satisfied),
        baseline=Figures(accuracy=91.0, latency_ms=1.0, latency_grade="measured", macs=41_000_000, params=272_000),
        final=Figures(accuracy=final, latency_ms=0.5, latency_grade="measured", macs=17_000_000, params=98_000),
        speedup=2.0,
        target="cpu",
        epochs=epochs,
        seconds=222.0,
        hardware="test builder, made-up figures",
        version="0.0.0+test",
    )


def plan(names: list[str]) -> Plan:
    before = {name: 16 * (1 + i * 4 // len(names)) for i, name in enumerate(names)}
    after = {name: 0 if i % 7 == 5 else width - 8 * (i % 3) for i, (name, width) in enumerate(before.items())}
    moves = [
        Move(kind="channels", where=name, closed=(0, 1, 2, 3, 9), loss=0.001 * i, saved_ms=0.01)
        for i, name in enumerate(names)
    ]
    return Plan(
        target="cpu",
        importance="fisher",
        budget="latency <= 0.5 ms",
        moves=tuple(moves),
        baseline_ms=1.0,
        predicted_ms=0.5,
        grade="table",
        widths_before=before,
        widths_after=after,
    )


def fusion(names: list[str]) -> FusionLog:
    return FusionLog(
        level="auto",
        fired=tuple(Fired(rule="batch-norm-into-conv", node=name, detail="test") for name in names),
        refused=(Refusal(rule="identity-shortcut", node=NASTY, reason="carried value may be negative"),),
        before=GraphFigures(operators={"Conv2d": 20, "BatchNorm2d": 20, "add": 9}, macs=41_000_000, params=272_000),
        after=GraphFigures(operators={"Conv2d": 20, "add": 9}, macs=41_000_000, params=270_000),
        max_error=1.2e-15,
        max_error_float32=3.4e-7,
        checked_inputs=("2x3x32x32", "1x3x33x31"),
    )


def graph(names: list[str], norms: bool = False) -> GraphRecord:
    """A chain of convolutions; every second one is added to what came two before it."""
    nodes = [GraphNode(name="x", kind="input", shape=(3, 32, 32))]
    for number, name in enumerate(names):
        nodes.append(
            GraphNode(name=f"c{number}", kind="Conv2d", inputs=(nodes[-1].name,), layer=name, shape=(16, 32, 32))
        )
        if norms:
            nodes.append(GraphNode(name=f"n{number}", kind="BatchNorm2d", inputs=(f"c{number}",), shape=(16, 32, 32)))
        if number % 2:
            nodes.append(
                GraphNode(name=f"a{number}", kind="add", inputs=(nodes[-1].name, f"c{number - 1}"), shape=(16, 32, 32))
            )
    return GraphRecord(nodes=(*nodes, GraphNode(name="output", kind="output", inputs=(nodes[-1].name,))))


def layer_times(names: list[str]) -> LayerTimes:
    before = tuple(LayerTime(name=name, kind="Conv", ms=0.02 + 0.002 * i) for i, name in enumerate(names))
    after = tuple(LayerTime(name=name, kind="Conv", ms=0.01 + 0.001 * i) for i, name in enumerate(names) if i % 7 != 5)
    return LayerTimes(before=before, after=after)


def history(attempt: int, epochs: int) -> History:
    records = [
        EpochRecord(
            epoch=epoch,
            stage="prune" if epoch <= epochs // 2 else "recover",
            loss=1 / epoch,
            accuracy=91 - attempt - 4 / epoch,
            predicted_speedup=1 + attempt * epoch / epochs,
            closed=20 * attempt * epoch,
            reopened=max(0, 12 - 3 * epoch),
            learning_rate=0.05 / epoch,
            seconds=12.0,
            images_per_second=1000.0,
            measured_speedup=None if epoch == 1 else 1.23,
        )
        for epoch in range(1, epochs + 1)
    ]
    return History(
        attempt=attempt, asked_speedup=1 + 0.5 * attempt, epochs=tuple(records), decisions=tuple(decisions(attempt))
    )


def decisions(attempt: int) -> list[DecisionRecord]:
    return [
        DecisionRecord(step=8 * i, asked_speedup=1.2, predicted_speedup=1.3, closed=9 * attempt, reopened=i)
        for i in range(DECISIONS)
    ]


def attempts(satisfied: bool = True) -> list[Attempt]:
    return [
        Attempt(
            attempt=number,
            asked_speedup=1 + 0.5 * number,
            speedup=1 + 0.5 * number,
            accuracy=accuracy,
            drop=91 - accuracy,
            satisfied=satisfied and accuracy >= 90,
            latency_ms=1 / (1 + 0.5 * number),
            macs=41_000_000 // (1 + number),
            params=272_000 // (1 + number),
        )
        for number, accuracy in enumerate([90.7, 90.4, 88.0], 1)
    ]


def _write(path: Path, record: BaseModel) -> None:
    path.write_text(record.model_dump_json())


def _write_all(path: Path, records: list[History] | list[Attempt] | list[DecisionRecord]) -> None:
    path.write_bytes(TypeAdapter(list[BaseModel]).dump_json([*records], serialize_as_any=True))
