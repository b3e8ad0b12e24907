"""Prune inside the ``Trainer`` of Hugging Face Transformers: a ResNet that classifies handwritten digits.

Run it with ``python examples/huggingface_trainer.py``; it needs ``pip install transformers accelerate``. Nothing is downloaded: the
network is made here, and the digits come with scikit-learn.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from plain_loop import digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import fupruner

try:
    from transformers import (
        EvalPrediction,
        ResNetConfig,
        ResNetForImageClassification,
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except Exception as error:  # a torchvision that does not fit the torch here raises anything
    raise SystemExit(
        f"Transformers cannot be imported: {error}\n"
        "pip install transformers accelerate; if they are there: install the torchvision that belongs to your torch, or none."
    ) from None

SIZE = 16
EXAMPLE = torch.zeros(1, 1, SIZE, SIZE)


class Pruning(TrainerCallback):
    """Passes the trainer's events on to ``fupruner.PruningCallback``. Copy it into a project of your own as it is."""

    def __init__(self, pruning: fupruner.PruningCallback, metric: str = "eval_accuracy") -> None:
        self.pruning, self.metric = pruning, metric

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count a step of the optimizer."""
        self.pruning.on_step()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        """Record the figure of an epoch."""
        self.pruning.on_epoch(metrics[self.metric])


class Student(nn.Module):
    """What the trainer trains: the gated network, with the loss that the trainer expects in its output."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss and logits."""
        logits = self.net(pixel_values)["logits"]
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Images(Dataset):
    """Images enlarged to SIZE x SIZE, as dictionaries of the names that the trainer passes on."""

    def __init__(self, data: TensorDataset) -> None:
        images, self.labels = next(iter(DataLoader(data, batch_size=len(data))))
        self.images = F.interpolate(images, SIZE)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Part of the images that is recognised, in percent."""
    return {"accuracy": 100 * float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def trainer(net: nn.Module, train: Images, validation: Images, folder: Path, epochs: int, rate: float) -> Trainer:
    """An ordinary trainer."""
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=48, per_device_eval_batch_size=256,
        learning_rate=rate, eval_strategy="epoch", save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, seed=0,
        dataloader_pin_memory=False, logging_strategy="no",
    )  # fmt: skip
    return Trainer(
        model=Student(net), args=arguments, train_dataset=train, eval_dataset=validation, compute_metrics=accuracy
    )


def loss(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy of a batch: what importance is taken from."""
    return F.cross_entropy(net(batch["pixel_values"])["logits"], batch["labels"])


def main(folder: Path, *, epochs: int = 4) -> tuple[float, float, fupruner.LoopResult]:
    """Train, fine-tune and prune; accuracy before and after, and the result."""
    torch.manual_seed(0)
    train, validation = map(Images, digits())
    model = ResNetForImageClassification(
        ResNetConfig(num_channels=1, embedding_size=32, hidden_sizes=[32, 64], depths=[2, 2], layer_type="basic", num_labels=10)
    )  # fmt: skip
    first = trainer(model, train, validation, folder, epochs, rate=2e-3)
    first.train()
    before = first.evaluate()["eval_accuracy"]
    pruning = fupruner.PruningCallback(
        copy.deepcopy(model).eval(), EXAMPLE, loss=loss, inputs=lambda batch: batch["pixel_values"],
        calibration=DataLoader(train, batch_size=96), calibration_images=384, speedup=1.4,
        total_steps=epochs * -(-len(train) // 48), deadline=0.4,
    )  # fmt: skip
    second = trainer(pruning.module, train, validation, folder, epochs, rate=1e-3)
    second.add_callback(Pruning(pruning))
    second.train()
    result = pruning.finish()
    images = DataLoader(validation, batch_size=len(validation))
    batch = next(iter(images))
    with torch.no_grad():
        found = result.module(batch["pixel_values"])["logits"].argmax(1)
    after = 100 * float((found == batch["labels"]).float().mean())
    print(f"{result.speedup:.2f}x faster, accuracy {before:.2f} % -> {after:.2f} %")
    return before, after, result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/huggingface"))
    main(parser.parse_args().out)
