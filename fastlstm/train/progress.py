"""What is shown while a network trains: one line for the whole run."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from fastlstm.train.loop import Task


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
        if "accuracy" in row:
            text += f", accuracy {row['accuracy']:.4f}"
        if "closed_loop_all" in row:
            text += f", closed loop {row['closed_loop_near']:.3g}, {row['closed_loop_all']:.3g}"
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
