"""Prune inside a ``Trainer`` of PyTorch Lightning: a callback of a few lines, on handwritten digits.

Run it with ``python examples/lightning_loop.py``; it needs ``pip install pytorch-lightning`` (or ``lightning``). ``Pruning`` below
passes the trainer's hooks on to ``fupruner.PruningCallback``. Copy it into a project of your own as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from plain_loop import EXAMPLE, accuracy, digits, fit, loss, network
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fupruner

try:
    import pytorch_lightning as pl
except Exception as error:  # a torchvision that does not fit the torch here raises anything
    raise SystemExit(
        f"PyTorch Lightning cannot be imported: {error}\n"
        "pip install pytorch-lightning; if it is there: install the torchvision that belongs to your torch, or none."
    ) from None


class Pruning(pl.Callback):
    """Passes a trainer's hooks on.

    Args:
        pruning: made for the network that the LightningModule trains.
        metric: name under which the LightningModule logs its figure on validation data.
    """

    def __init__(self, pruning: fupruner.PruningCallback, metric: str) -> None:
        self.pruning, self.metric = pruning, metric
        self.seen = 0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Count steps of the optimizer, of which one may take several batches."""
        if trainer.global_step > self.seen:
            self.seen = trainer.global_step
            self.pruning.on_step()

    def on_validation_epoch_end(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        """Record the figure of an epoch."""
        if not trainer.sanity_checking:
            self.pruning.on_epoch(float(trainer.callback_metrics[self.metric]))

    def state_dict(self) -> dict[str, Any]:
        """Goes into the trainer's checkpoints."""
        return {"pruning": self.pruning.state_dict(), "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Comes out of them, when ``trainer.fit(..., ckpt_path=...)`` goes on."""
        self.pruning.load_state_dict(state["pruning"])
        self.seen = state["seen"]


class Digits(pl.LightningModule):
    """An ordinary LightningModule around the network to train."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Mean cross-entropy."""
        return loss(self.net, batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Accuracy in percent."""
        images, labels = batch
        self.log("accuracy", 100 * (self.net(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Over the gated network's parameters, which stay the same until the end."""
        return torch.optim.SGD(self.net.parameters(), lr=0.02, momentum=0.9)


def fine_tune(model: nn.Module, train: TensorDataset, validation: TensorDataset, epochs: int) -> fupruner.LoopResult:
    """Fine-tune and prune with a trainer."""
    loader = DataLoader(train, batch_size=48, shuffle=True)
    pruning = fupruner.PruningCallback(
        model, EXAMPLE, loss=loss, calibration=DataLoader(train, batch_size=96), speedup=1.5,
        total_steps=epochs * len(loader), deadline=0.4, calibration_images=384,
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[Pruning(pruning, "accuracy")], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Digits(pruning.module), loader, DataLoader(validation, batch_size=len(validation)))
    return pruning.finish()


def main(*, epochs: int = 4) -> tuple[float, float, fupruner.LoopResult]:
    """Train, fine-tune and prune; accuracy before and after, and the result."""
    torch.manual_seed(0)
    train, validation = digits()
    model = network()
    fit(model, train, epochs)
    before = accuracy(model, validation)
    result = fine_tune(model, train, validation, epochs)
    after = accuracy(result.module, validation)
    print(f"{result.speedup:.2f}x faster, accuracy {before:.2f} % -> {after:.2f} %")
    return before, after, result


if __name__ == "__main__":
    main()
