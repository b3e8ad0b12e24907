"""The page of measured results: every file of benchmarks/results with the method that its script states. Nothing is typed by hand."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tables import escaped, table

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LONG = 25
"""Tables with more rows than this are folded."""
SENTENCE = 40
"""Cells of more characters than this are given room."""
NAMES = ("model", "network", "device", "name", "asked", "ratio", "speedup")


def results() -> str:
    """One section per file of results, what was to be reached first."""
    files = sorted((BENCHMARKS / "results").glob("*.json"), key=lambda file: (file.stem != "goals", file.stem))
    return "\n\n".join(_section(file) for file in files)


def _section(file: Path) -> str:
    script = BENCHMARKS / f"{file.stem}.py"
    method = (
        ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) if script.is_file() else None
    ) or file.stem
    title, _, rest = method.partition("\n")
    found = json.loads(file.read_text(encoding="utf-8"))
    return "\n\n".join(
        [f"## {title.rstrip('.')}", rest.strip(), *_shown(found, ""), f"From `benchmarks/results/{file.name}`."]
    )


def _shown(value: Any, name: str) -> Iterator[str]:
    """Facts, then tables, depth first."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        yield from _rows(value, name)
    elif isinstance(value, dict) and value and all(_is_flat(row) for row in value.values()):
        yield from _rows([{"": key, **row} for key, row in value.items()], name)
    elif isinstance(value, dict):
        facts = {key: each for key, each in value.items() if not isinstance(each, dict | list)}
        if facts:
            yield "; ".join(f"{key.replace('_', ' ')}: {_cell(each)}" for key, each in facts.items()) + "."
        for key, each in value.items():
            if isinstance(each, dict) and _is_flat(each):
                yield f"{key.replace('_', ' ')}: " + ", ".join(f"{k} {_cell(v)}" for k, v in each.items()) + "."
            elif key not in facts:
                yield from _shown(each, key)


def _is_flat(value: Any) -> bool:
    return isinstance(value, dict) and not any(isinstance(each, dict | list) for each in value.values())


def _rows(rows: list[dict[str, Any]], name: str) -> Iterator[str]:
    columns = [
        key for key in dict.fromkeys(key for row in rows for key in row) if any(_is_plain(row.get(key)) for row in rows)
    ]
    kept = [key for key in columns if all(_is_plain(row.get(key)) for row in rows)]
    nested = any(not _is_plain(each) for row in rows for each in row.values())
    if not nested or len(kept) > 1:
        cells = [tuple(_cell(row.get(key)) for key in kept) for row in rows]
        text = table(tuple(key.replace("_", " ") for key in kept), cells)
        yield _folded(text, f"{len(rows)} rows") if len(rows) > LONG else text
    for row in rows if nested else ():
        inner = {key: each for key, each in row.items() if not _is_plain(each) and key != "rounds"}
        label = next((str(row[key]) for key in NAMES if key in row), name)
        for each in inner.values():
            yield f"**{escaped(label)}**"
            yield from _shown(each, label)


def _is_plain(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _folded(text: str, label: str) -> str:
    return f"<details markdown><summary>{label}</summary>\n\n{text}\n</details>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else escaped(str(value))
    return f'<span class="sentence">{text}</span>' if len(text) > SENTENCE else text
