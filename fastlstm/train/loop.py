"""The training loop as Lightning sees it: windows, losses, history, and what is shown meanwhile.

Every epoch draws from its own seed, so that a resumed run is the run that was never interrupted.
"""

from __future__ import annotations

import csv
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from fastlstm.errors import FastLSTMError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastlstm.train.network import Network
    from fastlstm.train.recipe import Recipe
    from fastlstm.train.series import Parts

HISTORY = ("epoch", "train_loss", "validation_loss", "learning_rate")

_LOSSES: dict[str, type[nn.Module]] = {
    "mse": nn.MSELoss,
    "mae": nn.L1Loss,
    "huber": nn.HuberLoss,
}
_OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


class TrainingError(FastLSTMError, RuntimeError):
    """A run diverged, or there is nothing to resume."""


class Windows:
    """Batches of window starts, in an order that the seed and the epoch alone decide."""

    def __init__(self, task: Task, count: int) -> None:
        """Over `count` windows."""
        self.task, self.count = task, count

    def __len__(self) -> int:
        return math.ceil(self.count / self.task.recipe.training.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # A generator, because Lightning asks for the iterator of a resumed epoch before it has set
        # the epoch's number, and for its first batch after that.
        recipe = self.task.recipe
        generator = torch.Generator().manual_seed(self.task.epoch_seed())
        starts = torch.randperm(self.count, generator=generator) * recipe.windows.stride
        yield from torch.split(starts, recipe.training.batch_size)


class Task(LightningModule):
    """A network, the scaled series in memory, and one history row for each epoch."""

    def __init__(
        self, network: Network, recipe: Recipe, inputs: Tensor, targets: Tensor, parts: Parts
    ) -> None:
        """`inputs` (time, I) and `targets` (time, O) are the whole series, scaled, float32."""
        super().__init__()
        self.network, self.recipe, self.parts = network, recipe, parts
        # Plain attributes, not buffers: a checkpoint holds the network, not the data.
        self.inputs, self.targets = inputs, targets
        self.loss = _LOSSES[recipe.training.loss]()
        self.history: list[dict[str, float]] = []
        self.history_path: Path | None = None
        self.seconds = 0.0
        self._total: Tensor | float = 0.0
        self._count = 0
        self._validation_loss = math.nan
        self._clock = 0.0

    def epoch_seed(self) -> int:
        """The seed of the epoch that runs now."""
        return self.recipe.training.seed * 1_000_003 + self.current_epoch

    def train_dataloader(self) -> Windows:
        """Batches of window starts; the windows themselves are gathered in one indexing call."""
        windows = self.recipe.windows
        room = self.parts.train - windows.length - windows.horizon
        return Windows(self, room // windows.stride + 1)

    def val_dataloader(self) -> list[int]:
        """One entry: the validation part is one stretch."""
        return [0]

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser and, with it, its schedule."""
        options, training = self.recipe.optimiser, self.recipe.training
        optimiser = _OPTIMISERS[options.name](
            self.parameters(),
            lr=options.learning_rate,  # type: ignore[call-arg]
            weight_decay=options.weight_decay,
        )
        if options.schedule == "constant":
            return optimiser
        steps = training.max_epochs * len(self.train_dataloader())
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        # By the step: a schedule by the epoch would miss one move when a run is resumed.
        return [optimiser], [{"scheduler": cosine, "interval": "step"}]

    def on_fit_start(self) -> None:
        """Take the series to where the network is."""
        self.inputs, self.targets = self.inputs.to(self.device), self.targets.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Seed what the epoch draws: dropout and level shifts."""
        torch.manual_seed(self.epoch_seed())
        self._total, self._count, self._clock = 0.0, 0, time.perf_counter()

    def training_step(self, starts: Tensor) -> Tensor:
        """The loss over the windows that begin at `starts` (batch,), after their warm-up."""
        windows, training = self.recipe.windows, self.recipe.training
        rows = starts[:, None] + torch.arange(windows.length, device=starts.device)
        x, target = self.inputs[rows], self.targets[rows + windows.horizon]
        if training.level_shift:
            level = torch.rand(len(starts), 1, 1, device=x.device) * 2 - 1
            x, target = x + training.level_shift * level, target + training.level_shift * level
        y, _ = self.network(x)
        loss: Tensor = self.loss(y[:, windows.warm_up :], target[:, windows.warm_up :])
        self._total += loss.detach() * len(starts)
        self._count += len(starts)
        return loss

    def validation_step(self, _: Any) -> None:
        """One stream over the validation part, its state settled over the window before it."""
        windows, parts = self.recipe.windows, self.parts
        start = max(0, parts.train - windows.length - windows.horizon)
        x = self.inputs[None, start : parts.validation - windows.horizon]
        y, _ = self.network(x)
        y = y[0, parts.train - windows.horizon - start :]
        loss = self.loss(y, self.targets[parts.train : parts.validation])
        self._validation_loss = float(loss)
        self.log("validation_loss", loss, batch_size=1)

    def on_train_epoch_end(self) -> None:
        """Add a row to the history; stop a run whose losses are no numbers any more."""
        row = {
            "epoch": self.current_epoch,
            "train_loss": float(self._total) / self._count,
            "validation_loss": self._validation_loss,
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
        }
        if not math.isfinite(row["train_loss"] + row["validation_loss"]):
            training = self.recipe.training
            raise TrainingError(
                f"training diverged in epoch {self.current_epoch} (train loss "
                f"{row['train_loss']:g}, validation loss {row['validation_loss']:g}): lower "
                f"optimiser.learning_rate (now {self.recipe.optimiser.learning_rate:g}) or set a "
                f"smaller training.gradient_clip (now {training.gradient_clip:g}"
                f"{', which clips nothing' if not training.gradient_clip else ''})"
            )
        self.seconds += time.perf_counter() - self._clock
        self.history.append(row)
        self.write_history()

    def write_history(self) -> None:
        """The history as CSV, whole or not at all."""
        if self.history_path is None:
            return
        part = self.history_path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, HISTORY, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.history)
        os.replace(part, self.history_path)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """History and clock go on where they stopped."""
        checkpoint["history"], checkpoint["seconds"] = list(self.history), self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """History and clock go on where they stopped."""
        self.history, self.seconds = list(checkpoint["history"]), checkpoint["seconds"]


class EpochBar(Callback):
    """One line for the whole run; where standard error is no terminal, a line now and then."""

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self) -> None:
        """Nothing is shown before training starts."""
        self._bar: Any = None
        self._row: Any = None
        self._last = 0.0

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        """Open the bar."""
        self._last = time.monotonic()
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._row = self._bar.add_task(
            "", total=trainer.max_epochs, completed=trainer.current_epoch
        )
        self._bar.start()

    def on_train_epoch_end(self, trainer: Trainer, task: LightningModule) -> None:
        """Show the losses of the epoch before this one: this one's row is not written yet."""
        assert isinstance(task, Task)
        if not task.history:
            return
        row = task.history[-1]
        text = f"train loss {row['train_loss']:.4g}, validation {row['validation_loss']:.4g}"
        if self._bar is not None:
            self._bar.update(self._row, completed=trainer.current_epoch, description=text)
        elif time.monotonic() - self._last > self.SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            print_line(f"epoch {trainer.current_epoch} of at most {trainer.max_epochs}: {text}")

    def teardown(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Close the bar, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def print_line(text: str) -> None:
    """One line on standard error: results go elsewhere."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
