"""Data sets of a few images, as files."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(value: int = 0, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 255 - value)).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(path: Path, labels: list, images: list[bytes] | None = None, names=("image", "label")) -> Path:
    contents = images if images is not None else [png(10 * index) for index in range(len(labels))]
    column = pa.array(
        [{"bytes": content, "path": None} for content in contents],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({names[0]: column, names[1]: labels}), path)
    return path


def write_folder(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index:02}.png").write_bytes(png(10 * index))
    return root
