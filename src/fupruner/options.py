"""Validated options: the only source of defaults, help texts and the form of ``options.toml``."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args, get_origin

import tomli_w
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fupruner.errors import InputError

FusionLevel = Literal["none", "basic", "aggressive", "auto"]
OptimizerName = Literal["muon", "sgd"]
ImportanceName = Literal["fisher", "taylor", "l1", "l2", "geometric-median", "bn-scale", "random"]
ONE_SHOT_PLANS = 8
"""Plans that are judged where nothing is trained: whoever prunes in one shot wants an answer soon."""


class Options(BaseModel):
    """Everything that decides the outcome of ``optimize``, apart from the model and the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str = Field("cpu", description="Device the network is made for.")
    ship: Literal["auto", "float32", "int8"] = Field("auto", description="Format that ships.")
    device: str | None = Field(
        None, description="Time networks there: ssh://USER@HOST.", examples=["ssh://pi@board.local"]
    )
    fit_on_chip: bool = Field(False, description="Parameters must fit on the chip.")
    max_drop: float = Field(1.0, ge=0, le=100, description="Points accuracy may lose.")
    speedup: float | None = Field(None, gt=1, description="Wanted; else the fastest within max-drop.", examples=[2.0])
    epochs: int = Field(5, ge=1, description="Epochs of training per attempt.")
    fusion: FusionLevel = Field("auto", description="How far operators are rewritten into filters.")
    importance: ImportanceName = Field("fisher", description="Predicts what closing a gate loses.")
    batch_size: int = Field(128, ge=1, description="Images per training step.")
    learning_rate: float = Field(0.03, gt=0, description="Peak of the cosine schedule.")
    warmup: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of the steps in which the learning rate rises to its peak; without it, as long as gates move.",
        examples=[0.05],
    )
    optimizer: OptimizerName = Field(
        "muon", description="Of recovery: muon turns the steps of dense kernels, sgd is momentum alone."
    )
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay of kernels and matrices that sgd trains.")
    augment: Literal["auto", "none", "light", "standard", "strong", "shift"] = Field(
        "auto", description="How training images are varied; auto: what suits the images, lightly in short schedules."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Part of a label that is spread over all classes.")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of the average over the weights of all recovery steps, which then ships; 0 ships the last weights.",
        examples=[0.99],
    )
    distill: bool = Field(True, description="Learn from the original network's logits.")
    distill_features: float = Field(
        5.0,
        ge=0,
        description="Weight, falling to 0, of learning the original's feature maps at the end of each stage; 0 for none.",
    )
    compensate: bool = Field(
        True, description="Before recovery, let what is left take over what was cut, by least squares."
    )
    calibration_images: int = Field(1024, ge=1, description="Training images that scores and norms are taken from.")
    plans: int = Field(32, ge=1, description="Plans that are made and judged as a whole before training.")
    attempts: int = Field(4, ge=1, description="How many speed-ups are tried when none is asked for.")
    pruning_share: float = Field(
        0.15, gt=0, le=1, description="Share of the steps in which gates open and close; recovery has the rest."
    )
    decisions: int = Field(5, ge=1, description="How often gates are decided in that time.")
    threads: int = Field(1, ge=1, description="Of the runtime when it is timed.")
    precision: Literal["bf16-mixed", "32-true"] = Field("bf16-mixed", description="Arithmetic of training.")
    checkpoint_every: float = Field(60.0, ge=0, description="Seconds between checkpoints in an epoch.")
    tensorboard: bool = Field(False, description="Write TensorBoard figures into the run folder.")
    seed: int = Field(0, ge=0, description="Of shuffling and augmentation.")


def allowed(name: str, *, brief: bool = False) -> str:
    """What values an option takes, in words; empty where everything of its type is fine.

    Args:
        name: of the option.
        brief: for a help page, where room is scarce: nothing about a lower bound of 0.
    """
    field = Options.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return ("" if brief else "one of ") + ", ".join(map(str, get_args(field.annotation)))
    bounds = [bound for bound in field.metadata if isinstance(bound, Ge | Gt | Le | Lt)]
    return " and ".join(_bound(bound) for bound in bounds if not (brief and bound == Ge(0)))


def must_be(name: str) -> str:
    """Type and range of an option in words, for example ``a whole number, at least 1``."""
    annotation = Options.model_fields[name].annotation
    if get_origin(annotation) is Literal:
        return allowed(name)
    kinds = [_KINDS[each] for each in (get_args(annotation) or (annotation,)) if each in _KINDS]
    return ", ".join(part for part in (" or ".join(kinds), allowed(name)) if part)


_KINDS: dict[object, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _bound(bound: Ge | Gt | Le | Lt) -> str:
    match bound:
        case Ge():
            return f"at least {bound.ge}"
        case Gt():
            return f"more than {bound.gt}"
        case Le():
            return f"at most {bound.le}"
        case Lt():
            return f"less than {bound.lt}"


def parse_options(values: dict[str, object], source: str = "the command line") -> Options:
    """Validate option values; every violation is named with what was given and what is allowed.

    Raises:
        InputError: a name is unknown or a value is out of range.
    """
    return _validated(values, lambda name: f"{source}: option {name}")


def _validated(values: dict[str, object], place: Callable[[str], str]) -> Options:
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        problems = {str(problem["loc"][0]) if problem["loc"] else "?": problem["input"] for problem in error.errors()}
        lines = [f"{place(name)} = {_shown(value)}: {_complaint(name)}" for name, value in problems.items()]
        raise InputError("\n".join(lines), hint="See 'fupruner optimize --help' for the allowed values.") from None


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _complaint(name: str) -> str:
    """Say what is wrong with the value of an option, or that there is no such option."""
    if name in Options.model_fields:
        return f"must be {must_be(name)}."
    near = difflib.get_close_matches(name, Options.model_fields, n=3, cutoff=0.5)
    return "there is no such option" + (f"; did you mean {' or '.join(near)}?" if near else ".")


def write_options(options: Options, path: Path) -> None:
    """Write options as TOML; an option without a value is left out."""
    path.write_text(tomli_w.dumps(options.model_dump(exclude_none=True)), encoding="utf-8")


def read_options(path: Path) -> Options:
    """Read options from TOML; ``model_fields_set`` of what is returned tells which of them the file names.

    Raises:
        InputError: the file is missing, is not TOML, or holds an unusable option; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"Cannot read options from {path}: {error}.") from None
    return _validated(values, lambda name: f"{path}, line {line_of(text, name)}: {name}")


def line_of(text: str, name: str) -> int:
    """Line of a TOML text, counted from 1, on which a name of the top level is given a value or begins a table."""
    quoted = rf"[\"']?{re.escape(name)}[\"']?"
    pattern = re.compile(rf"\s*({quoted}\s*[=.]|\[+\s*{quoted}\s*[\].])")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)
