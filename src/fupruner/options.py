"""Validated options: the only source of defaults, help texts and the form of ``options.toml``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fupruner.errors import InputError

FusionLevel = Literal["none", "basic", "aggressive", "auto"]
ImportanceName = Literal["fisher", "taylor", "l1", "l2", "geometric-median", "bn-scale", "random"]


class Options(BaseModel):
    """Everything that decides the outcome of ``optimize``, apart from the model and the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str = Field("cpu", description="Device the network is made for.")
    max_drop: float = Field(1.0, ge=0, le=100, description="Points of accuracy that may be lost.")
    speedup: float | None = Field(None, gt=1, description="Asked speed-up; without it, the fastest within max-drop.")
    epochs: int = Field(5, ge=1, description="Epochs of training per attempt.")
    fusion: FusionLevel = Field("auto", description="How far operators are rewritten into filters.")
    importance: ImportanceName = Field("fisher", description="How the loss of closing a gate is predicted.")
    batch_size: int = Field(128, ge=1, description="Images per training step.")
    learning_rate: float = Field(0.03, gt=0, description="Peak learning rate of the cosine schedule.")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay of convolutions and linear layers.")
    augment: Literal["auto", "none", "light", "standard", "strong", "shift"] = Field(
        "auto", description="How training images are varied; auto: what suits the images, lightly in short schedules."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Part of a label that is spread over all classes.")
    distill: bool = Field(True, description="Learn from the original network's logits.")
    distill_features: float = Field(
        5.0,
        ge=0,
        description="Weight of learning from the original's feature maps at the end of each stage; 0 for none.",
    )
    compensate: bool = Field(
        True, description="Before recovery, let what is left take over what was cut, by least squares."
    )
    calibration_images: int = Field(1024, ge=1, description="Training images that scores and norms are taken from.")
    attempts: int = Field(3, ge=1, description="How many speed-ups are tried when none is asked for.")
    pruning_share: float = Field(
        0.15, gt=0, le=1, description="Share of the steps in which gates open and close; recovery has the rest."
    )
    decisions: int = Field(5, ge=1, description="How often gates are decided in that time.")
    threads: int = Field(1, ge=1, description="Threads of the runtime when latency is measured.")
    precision: Literal["bf16-mixed", "32-true"] = Field("bf16-mixed", description="Arithmetic of training.")
    checkpoint_every: float = Field(60.0, ge=0, description="Seconds between checkpoints within an epoch.")
    seed: int = Field(0, ge=0, description="Seed of shuffling, augmentation and initialisation.")


def parse_options(values: dict[str, object], source: str = "the command line") -> Options:
    """Validate option values; every violation is named with what was given and what is allowed.

    Raises:
        InputError: a name is unknown or a value is out of range.
    """
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        lines = [
            f"{source}: option {'.'.join(map(str, problem['loc'])) or '?'} = {problem['input']!r}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise InputError("\n".join(lines), hint="See 'fupruner optimize --help' for the allowed values.") from None


def write_options(options: Options, path: Path) -> None:
    """Write options as TOML; an option without a value is left out."""
    path.write_text(tomli_w.dumps(options.model_dump(exclude_none=True)))


def read_options(path: Path) -> Options:
    """Read options from TOML.

    Raises:
        InputError: the file is missing, is not TOML, or holds an unusable option.
    """
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"Cannot read options from {path}: {error}.") from None
    return parse_options(values, str(path))
