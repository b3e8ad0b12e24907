"""Images in tables that Hugging Face ``datasets`` reads: parquet files and data sets of the hub."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fupruner.errors import DataError
from fupruner.training.sources import Encoded, RawData, RawSplit, SplitNames, assemble

_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")


def parquet_files(source: str) -> list[Path]:
    """Parquet files that a source names: one, several with commas between, or those in a folder and one level below."""
    paths = [Path(part) for part in source.split(",")]
    if all(path.suffix == ".parquet" for path in paths):
        return paths
    return sorted([*paths[0].glob("*.parquet"), *paths[0].glob("*/*.parquet")]) if len(paths) == 1 else []


def read_parquet(files: list[Path], source: str, names: SplitNames) -> RawData:
    """Read parquet files; a file's split is its name without the shard number, or its folder's name below the source.

    Raises:
        DataError: a file is missing or unreadable, lacks a column, or a split is not there.
    """
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise DataError(f"There is no file {', '.join(missing)}.", hint="Check the path given to --data.")
    by_split: dict[str, list[str]] = {}
    for path in files:
        by_split.setdefault(_split_name(path, source), []).append(str(path))
    chosen = names.choose(by_split, source)
    keys = {name: f"part{number}" for number, name in enumerate(chosen) if name is not None}  # "all" is no legal key
    with _quiet(), tempfile.TemporaryDirectory() as cache:
        import datasets  # noqa: PLC0415 - takes seconds, and other sources do without

        try:
            wanted = {keys[name]: by_split[name] for name in keys}
            tables = datasets.load_dataset("parquet", data_files=wanted, cache_dir=cache)
        except Exception as error:  # a broken file surfaces as any of a dozen types
            raise DataError(f"Cannot read {source} as parquet: {_root_cause(error)}") from None
        named = {name: tables[key] for name, key in keys.items()}
        return _assemble_tables(named, chosen, {name: ", ".join(by_split[name]) for name in keys})


def read_hub(name: str, names: SplitNames) -> RawData:
    """Read a data set of the Hugging Face hub, or of the hub's cache on this machine.

    Raises:
        DataError: it cannot be loaded, lacks a column, or a split is not there.
    """
    with _quiet():
        import datasets  # noqa: PLC0415 - takes seconds, and other sources do without

        try:
            tables = datasets.load_dataset(name)
        except Exception as error:  # the hub's client, the network and the data set's files all have their own
            raise DataError(
                f"Cannot load the data set {name} from the Hugging Face hub: {_root_cause(error)}",
                hint="Check the name and the network; a folder of class folders or of parquet files works without.",
            ) from None
        where = f"hf:{name}"
        return _assemble_tables(tables, names.choose(tables, where), {split: f"{where}, {split}" for split in tables})


def _split_name(path: Path, source: str) -> str:
    inside = path.parent != Path(source) and path.parent.name != "data" and Path(source).is_dir()
    return path.parent.name if inside else _SHARD.sub("", path.stem)


def _assemble_tables(tables: Mapping[str, Any], chosen: tuple[str, str | None], where: Mapping[str, str]) -> RawData:
    train = tables[chosen[0]]
    column = _label_column(train, where[chosen[0]])
    names = getattr(train.features[column], "names", None)
    highest = 0 if names else max(_labels(train, column, where[chosen[0]]), default=0)
    classes = tuple(names) if names else tuple(map(str, range(highest + 1)))
    return assemble(chosen, lambda name: _read_split(tables[name], where[name]), lambda: classes)


def _read_split(table: Any, where: str) -> RawSplit:
    labels = _labels(table, _label_column(table, where), where)
    images = _images(table, where)
    return RawSplit(images, labels, range(len(images)), where)


def _label_column(table: Any, where: str) -> str:
    return _column(table, _LABEL_COLUMNS, "label", where)


def _labels(table: Any, column: str, where: str) -> list[int]:
    labels: list[int] = table.with_format("arrow")[:][column].to_pylist()
    bad = next((row for row, label in enumerate(labels) if not isinstance(label, int)), None)
    if bad is not None:
        raise DataError(
            f"Row {bad} of {where} has the {column} {labels[bad]!r}.", hint="Labels must be class indices from 0."
        )
    return labels


def _images(table: Any, where: str) -> list[Encoded]:
    import datasets  # noqa: PLC0415 - takes seconds, and other sources do without

    column = _column(table, _IMAGE_COLUMNS, "image", where)
    try:
        encoded = table.cast_column(column, datasets.Image(decode=False)).with_format("arrow")[:][column]
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(f"Column {column} of {where} does not hold encoded images: {_root_cause(error)}") from None
    images: list[Encoded] = []
    for chunk in encoded.chunks:
        contents, paths = chunk.field("bytes").to_pylist(), chunk.field("path").to_pylist()
        images += [content or path or b"" for content, path in zip(contents, paths, strict=True)]
    return images


def _column(table: Any, accepted: tuple[str, ...], what: str, where: str) -> str:
    found = next((name for name in accepted if name in table.column_names), None)
    if found is None:
        raise DataError(
            f"There is no column {accepted[0]!r} in {where}.",
            hint=f"Its columns: {', '.join(table.column_names)}. Rename the one with the {what}.",
        )
    return found


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ``datasets`` from drawing progress bars of its own."""
    import datasets  # noqa: PLC0415 - takes seconds, and other sources do without

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()
