"""The TOML file that ``fupruner sweep`` reads."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fupruner.errors import InputError, unknown_name
from fupruner.sweeping.records import Method
from fupruner.sweeping.space import Space, parse_space

EXAMPLE = """\
model = "fupruner:digits_resnet"
weights = "baseline.safetensors"
data = "digits"
method = "grid"  # every combination; or "search", which takes trials = 20 and seed = 0

[options]  # the same for all trials, as in options.toml
epochs = 2
max_drop = 5.0

[space]  # what varies: values, or a range (search only) like { low = 0.005, high = 0.05, log = true }
fusion = ["basic", "auto"]
speedup = [1.3, 1.6]
"""


class SweepFile(BaseModel):
    """What to sweep: names as on the command line of ``optimize``, options that stay, options that vary."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    data: str
    weights: Path | None = None
    input_shape: str | None = None
    mean_std: str | None = None
    train_split: str | None = None
    validation_split: str | None = None
    method: Method = "grid"
    trials: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    options: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, Any] = Field(default_factory=dict)

    @property
    def splits(self) -> dict[str, str]:
        """The splits of the data that were named."""
        named = {"train_split": self.train_split, "validation_split": self.validation_split}
        return {name: split for name, split in named.items() if split is not None}

    def parsed_space(self, path: Path) -> Space:
        """What varies, validated; see ``space.parse_space``."""
        return parse_space(self.space, self.options, str(path))


def read_sweep_file(path: Path) -> SweepFile:
    """Read and validate a sweep's file; a relative path of weights is that of the working directory.

    Raises:
        InputError: the file is missing, is not TOML, or holds something that cannot be used.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"Cannot read a sweep from {path}: {error}.") from None
    for name in values.keys() - SweepFile.model_fields.keys():
        raise unknown_name(f"entry in {path}", name, SweepFile.model_fields)
    try:
        found = SweepFile.model_validate(values)
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, each['loc']))}: {each['msg']}." for each in error.errors()]
        raise InputError("\n".join(lines), hint="See 'fupruner sweep --help' for an example.") from None
    found.parsed_space(path)
    return found
