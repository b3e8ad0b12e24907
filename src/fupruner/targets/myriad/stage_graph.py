"""Reads the stage graph that the vendor's compiler dumps (Graphviz)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fupruner.errors import TargetError

_STAGE = re.compile(r'\s*label="\[(-?\d+) / (\d+)\] Stage (.*)"\s*$')
_MEMORY = re.compile(r"usedMemory = \[(.*?)\]")


@dataclass(frozen=True)
class Stage:
    """One step of the device's schedule.

    Attributes:
        name: of the layer that it comes from, with what it does for it.
        kind: of that layer, for example ``Convolution``.
        mode: of the convolution engine, or empty.
        cost: engine cycles per output pixel as the compiler counts them; 0 without an engine.
        relu: whether an activation is part of it.
        executed: False for a view, which costs nothing at run time.
    """

    name: str
    kind: str
    mode: str
    cost: int
    relu: bool
    executed: bool


@dataclass(frozen=True)
class StageGraph:
    """The schedule, in order, and the memory that it uses in bytes."""

    stages: tuple[Stage, ...]
    memory: dict[str, int]

    @property
    def cost(self) -> int:
        """The compiler's cost, summed over all stages."""
        return sum(stage.cost for stage in self.stages)

    @property
    def kinds(self) -> Counter[str]:
        """Stages by the kind of layer that they come from."""
        return Counter(stage.kind for stage in self.stages)


def read_stage_graph(path: Path) -> StageGraph:
    """Read a dump.

    Raises:
        TargetError: there is no dump, or nothing in it reads like a stage.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise TargetError(f"The compiler's stage graph cannot be read: {error}.") from None
    found = [match for line in lines if (match := _STAGE.match(line))]
    if not found:
        raise TargetError(f"{path} holds no stage; another version of the compiler may have written it.")
    memory = next((match[1] for line in lines if (match := _MEMORY.search(line))), "")
    sizes = (part.strip().partition(" = ") for part in memory.split(r"\l"))
    return StageGraph(
        tuple(_stage(match) for match in sorted(found, key=lambda match: int(match[2]))),
        {name: int(value) for name, _, value in sizes if value.isdecimal()},
    )


def _stage(match: re.Match[str]) -> Stage:
    name, *lines = match[3].split(r"\l")
    pairs: Sequence[tuple[str, str, str]] = [line.strip().partition(" = ") for line in lines]
    values: dict[str, list[str]] = {}
    for key, _, value in pairs:
        values.setdefault(key, []).append(value)
    kinds = values.get("type", [""])
    cost = values.get("cost", ["0"])[0]
    return Stage(
        name=name,
        kind=kinds[-1],  # the first is how it is run, the last the layer's
        mode=values.get("mode", [""])[0],
        cost=int(cost) if cost.isdecimal() else 0,
        relu=values.get("withReLU", ["0"])[0] == "1",
        executed=int(match[1]) >= 0,
    )
