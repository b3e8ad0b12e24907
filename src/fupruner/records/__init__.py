"""What the stages hand to each other and write to the run folder: plain, immutable, JSON-ready records, one topic a file."""

from __future__ import annotations

from fupruner.records.base import Record
from fupruner.records.graphs import Fired, FusionLog, GraphFigures, GraphNode, GraphRecord, Refusal
from fupruner.records.latency import Comparison, Grade, LayerTime, Measurement
from fupruner.records.metric import Metric
from fupruner.records.outcome import Fact, Figures, Judgement, Requirement, Shipped, Summary
from fupruner.records.plans import GroupRecord, Move, MoveKind, Plan, Preview
from fupruner.records.training import DecisionRecord, EpochRecord, History

__all__ = [
    "Comparison",
    "DecisionRecord",
    "EpochRecord",
    "Fact",
    "Figures",
    "Fired",
    "FusionLog",
    "Grade",
    "GraphFigures",
    "GraphNode",
    "GraphRecord",
    "GroupRecord",
    "History",
    "Judgement",
    "LayerTime",
    "Measurement",
    "Metric",
    "Move",
    "MoveKind",
    "Plan",
    "Preview",
    "Record",
    "Refusal",
    "Requirement",
    "Shipped",
    "Summary",
]
