"""Train a small residual network on handwritten digits, then let ``fupruner optimize`` make it fast.

Run it with ``make demo``. Nothing is downloaded: the digits come with scikit-learn. Results go to
``runs/digits``.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from itertools import count
from pathlib import Path

from rich.console import Console
from safetensors.torch import save_file

from fupruner.bars import RichProgress
from fupruner.models.resolve import load_model
from fupruner.training.data import load_data
from fupruner.training.loop import train
from fupruner.training.task import Classification

MODEL = "fupruner:digits_resnet"
FOLDER = Path("runs/digits")
EPOCHS = 20


def main() -> int:
    """Train unless that was done before, optimize, and return the exit code of the command."""
    console = Console(stderr=True, highlight=False)
    weights = FOLDER / "baseline.safetensors"
    if weights.exists():
        console.print(f"Using the network trained before: {weights}")
    else:
        train_baseline(console, weights)
    arguments = ["optimize", MODEL, "--weights", str(weights), "--data", "digits", "--out", str(new_folder())]
    console.print(f"\n[bold]$ fupruner {shlex.join(arguments)}[/bold]\n", soft_wrap=True)
    return subprocess.run([sys.executable, "-m", "fupruner", *arguments], check=False).returncode  # noqa: S603 - ours


def train_baseline(console: Console, weights: Path) -> None:
    """Train the network that the demo starts from, and save it."""
    model = load_model(MODEL)
    images = load_data("digits", image_shape=model.input_shape, mean=model.mean, std=model.std)
    task = Classification(images, batch_size=64)
    with RichProgress(console) as progress:
        progress.stage("train a network on digits", EPOCHS * task.steps_per_epoch)
        results = train(
            model.module,
            task,
            epochs=EPOCHS,
            learning_rate=0.1,
            on_step=[lambda step, _: progress.advance(loss=step.loss)],
        )
    console.print(f"Trained: {results[-1].accuracy:.2f} % of the validation digits are recognised.")
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.module.state_dict(), weights)


def new_folder() -> Path:
    """A folder that does not exist yet, so that no earlier result is lost."""
    names = (FOLDER / ("optimized" if number == 1 else f"optimized-{number}") for number in count(1))
    return next(folder for folder in names if not folder.exists())


if __name__ == "__main__":
    sys.exit(main())
