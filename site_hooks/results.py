"""Builds the page of measured results from ``benchmarks/results``: every figure comes from a file, none is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


def on_files(files: Any, config: Any) -> Any:
    """Add the page while the site is built."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - the site builder is needed only while it runs

    files.append(File.generated(config, "results.md", content=page()))
    return files


def page() -> str:
    """Write the page: one section per file, with the script that wrote it."""
    parts = [
        "# Measured results",
        "Every figure on this page was read from a file that a script in `benchmarks/` wrote.",
    ]
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        parts += section(file.stem, json.loads(file.read_text(encoding="utf-8")))
    return "\n\n".join(parts) + "\n"


def section(name: str, content: Row) -> list[str]:
    """Write what one file holds: the conditions, then its rows as tables."""
    script = ROOT / "benchmarks" / f"{name}.py"
    title = name.replace("_", " ").capitalize()
    command = [f"Measured by `python benchmarks/{name}.py`."] if script.is_file() else []
    conditions = [f"{key}: {_text(value)}" for key, value in content.items() if not _is_rows(value)]
    tables = [f"**{key.replace('_', ' ')}**\n\n{table(value)}" for key, value in content.items() if _is_rows(value)]
    return [f"## {title}", *command, "\n".join(f"- {line}" for line in conditions), *tables]


def table(rows: list[Row]) -> str:
    """Write rows as Markdown; rows within a row repeat what that row says of all of them."""
    flat = [each for row in rows for each in flattened(row)]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    lines = [[key.replace("_", " ") for key in columns], ["---"] * len(columns)]
    lines += [[_text(row.get(key, "")) for key in columns] for row in flat]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def flattened(row: Row) -> list[Row]:
    """Spread the first list of rows within a row; further ones are named after their key."""
    own = {key: value for key, value in row.items() if not _is_rows(value)}
    inner = [{**own, "of": key, **each} for key, value in row.items() if _is_rows(value) for each in value]
    return [{key: value for key, value in each.items() if not _is_rows(value)} for each in inner] or [own]


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value).replace("|", "\\|").replace("<", "&lt;")
