"""The training loop as Lightning sees it: batches, losses, history, closed-loop forecasts.

Every epoch draws from its own seed, so that a resumed run is the run that was never interrupted.
"""

from __future__ import annotations

import inspect
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fastlstm.errors import FastLSTMError
from fastlstm.train.batches import Batch, Batches, Groups, Looks, Windows
from fastlstm.train.least_squares import LeastSquares
from fastlstm.train.losses import loss_of, relative_error
from fastlstm.train.optimisers import configured

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fastlstm.train.cells import States
    from fastlstm.train.closed_loop import ClosedLoop
    from fastlstm.train.layout import Layout
    from fastlstm.train.network import Network
    from fastlstm.train.recipe_tables import Recipe
    from fastlstm.train.split import Parts

# What is called with the number of each epoch and its closed-loop forecast, (sequences, steps, T).
OnForecast: TypeAlias = Callable[[int, Tensor], None]


class TrainingError(FastLSTMError, RuntimeError):
    """A run diverged, could not be written, or there is nothing to resume."""


# nn.Module looks up whatever is set among its weights first, a tenth of a small network's step.
_NEVER_WEIGHTS = frozenset({"_current_fx_name", "_total", "_count", "_state", "_evaluated"})


class Task(LightningModule):
    """A network, the scaled series in memory, and one history row for each epoch."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        layout: Layout,
        inputs: Tensor,
        targets: Tensor,
        parts: Parts,
        closed_loop: ClosedLoop | None = None,
    ) -> None:
        """`inputs` (time, I) and `targets` (time, T) are all sequences, scaled."""
        super().__init__()
        self.network, self.recipe, self.layout, self.parts = network, recipe, layout, parts
        # Plain attributes, not buffers: a checkpoint holds the network, not the data.
        self.inputs, self.targets, self.closed_loop = inputs, targets, closed_loop
        self.loss = loss_of(recipe)
        # The learning-rate finder looks for this name.
        self.learning_rate = recipe.optimiser.learning_rate
        self.history: list[dict[str, float]] = []
        self.history_path: Path | None = None
        self.on_forecast: OnForecast | None = None
        self.seconds = 0.0
        self._looks: Looks | None = None
        self._state: States | None = None
        self._total: Tensor | float = 0.0
        self._count = 0
        self._seen: dict[str, float] = {}
        self._sums: list[tuple[int, Tensor, Tensor | None]] = []
        self._clock = 0.0
        self._repeats = recipe.optimiser.name == "lbfgs"
        self._evaluated = 0  # the last batch of the epoch whose loss is counted, from 1 on
        self._free = 0
        self._solver: LeastSquares | None = None
        if recipe.optimiser.name == "least_squares":
            self._solver, self.automatic_optimization = LeastSquares(network), False
        self._grouped = False
        # Now: what it refuses is refused before anything is written.
        self.batches = Batches(self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning notes some forty times a step which hook it calls: never a weight."""
        if name in _NEVER_WEIGHTS:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def world_size(self) -> int:
        """How many processes train."""
        return self._trainer.world_size if self._trainer is not None else 1

    def epoch_seed(self) -> int:
        """The seed of the epoch that runs now."""
        return self.recipe.training.seed * 1_000_003 + self.current_epoch

    def group(self) -> None:
        """Take many steps in each call of training_step, where nothing counts Lightning's batches.

        Its hooks around each batch cost a fifth of a small network's step. L-BFGS evaluates a batch
        many times, averaged weights are averaged after each of Lightning's batches, and under mixed
        precision only what Lightning does itself keeps backward and weights out of autocast.
        """
        training = self.recipe.training
        each = self._repeats or training.average_weights or training.precision.endswith("mixed")
        if self._solver is None and not each:
            self._grouped, self.automatic_optimization = True, False

    def train_dataloader(self) -> Batches | Groups:
        """Batches of windows, gathered in one indexing call each."""
        return Groups(self.batches) if self._grouped else self.batches

    def val_dataloader(self) -> Looks:
        """The validation part, or the test part where there is none."""
        if self._looks is None:
            windows = Windows.to_look_at(self.parts.choosing, self.recipe.windows)
            self._looks = Looks(list(windows.all_at_once()))
        return self._looks

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser and, with it, its schedule."""
        steps = self.recipe.training.max_epochs * len(self.batches)
        table, rate = self.recipe.optimiser, self.learning_rate
        fused = not self.recipe.training.precision.endswith("mixed")
        return configured(table, self.network.parameters(), rate, steps, fused=fused)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        """Batches are rows of what is already there; sizes stay, as torch wants them."""
        return batch

    def on_fit_start(self) -> None:
        """Take the series to where the network is, in its precision."""
        dtype = next(self.network.parameters()).dtype
        self.inputs = self.inputs.to(self.device, dtype)
        self.targets = self.targets.to(self.device, dtype)
        if self.closed_loop is not None:
            self.closed_loop = self.closed_loop.to(self.device, dtype)

    def on_train_epoch_start(self) -> None:
        """Seed what the epoch draws: dropout, noise and level shifts."""
        torch.manual_seed(self.epoch_seed())
        self._total, self._count, self._clock = 0.0, 0, time.perf_counter()
        self._evaluated = 0
        self._state = None
        table = self.recipe.windows
        self._free = table.free_run if self.current_epoch >= table.free_run_after else 0
        if self._free and self.current_epoch == table.free_run_after:
            # What L-BFGS knows of the curvature is that of another loss.
            for optimiser in self.trainer.optimizers:
                if isinstance(optimiser, torch.optim.LBFGS):
                    optimiser.state.clear()

    def future(self, origins: Tensor) -> Tensor:
        """The truth at each origin: (..., ahead, targets)."""
        if self.layout.direct:
            # A view: nothing is copied but what is asked for.
            ahead = self.targets.unfold(0, self.layout.horizon, 1)
            return ahead[origins + 1].transpose(-1, -2)
        return self.targets[origins + self.layout.horizon].unsqueeze(-2)

    def forecasts(self, batch: Batch, x: Tensor) -> Tensor:
        """The network's forecasts at the scored steps: (..., ahead, targets, quantiles)."""
        if batch.sizes is None:
            assert isinstance(batch.scored, slice)
            y: Tensor = self.network(x)[0][:, batch.scored]
        else:
            y = self.network.packed(x, batch.sizes)[batch.scored]
        return y.reshape(*y.shape[:-1], *self.layout.shape)

    def training_step(self, batch: Any, batch_idx: int = 0) -> Tensor | None:
        """The loss over one batch of windows or, grouped, the steps over several of them."""
        if not self._grouped:
            return self.batch_loss(batch, batch_idx)
        self._take_steps(batch)
        return None

    def _take_steps(self, batches: Iterable[tuple[Batch, Any]]) -> None:
        """What Lightning does around its own batches: losses, gradients, weights and rates."""
        optimiser: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        clip = self.recipe.training.gradient_clip
        for batch in batches:
            loss = self.batch_loss(batch)
            assert loss is not None
            optimiser.zero_grad()
            self.manual_backward(loss)
            if clip:
                self.clip_gradients(optimiser, gradient_clip_val=clip)
            optimiser.step()
            if schedule is not None and not isinstance(schedule, ReduceLROnPlateau):
                schedule.step()

    def batch_loss(self, batch: tuple[Batch, Any], batch_idx: int = 0) -> Tensor | None:
        """The loss over one batch of windows."""
        windows, extra = batch
        x, truth = self.inputs[windows.rows], self.future(windows.origins)
        x, truth = self._disturbed(windows, x, truth)
        if self._solver is not None:
            self._take_in(self._solver, windows, x, truth, last=batch_idx == len(self.batches) - 1)
            return None
        if self.recipe.windows.stateful:
            if extra:
                self._state = None
            y, state = self.network(x, self._state)
            self._state = tuple(vector.detach() for vector in state)
            y = y[:, windows.scored].unflatten(-1, self.layout.shape)
        elif self._free:
            y, truth = self.free_run(x), truth[:, -self._free :]
        else:
            y = self.forecasts(windows, x)
        loss = self.loss(y, truth)
        count = truth.shape.numel()
        if self.world_size > 1 and not extra:
            count = 0  # in vain: another process has this window
        # L-BFGS evaluates a batch many times, some of them far away: the first is what counts.
        if not self._repeats or batch_idx + 1 != self._evaluated:
            self._total += loss.detach() * count
            self._count += count
            self._evaluated = batch_idx + 1
        if self.world_size > 1:
            # The mean over all processes, whose gradients are averaged, is the batch's own.
            loss = loss * (self.world_size * extra)
        return loss

    @torch.no_grad()
    def _take_in(
        self, solver: LeastSquares, batch: Batch, x: Tensor, truth: Tensor, *, last: bool
    ) -> None:
        """A batch's part of the normal equations, and their solution after the last batch."""
        solver.add(self.network(x)[0][:, batch.scored], truth.flatten(-2))
        self.optimizers().step()  # type: ignore[union-attr]
        if last:
            self._total, self._count = solver.solve(self._penalty()), 1
            solver.begin()

    def _penalty(self) -> float:
        penalties = self.recipe.optimiser.penalties
        return penalties[self.current_epoch % len(penalties)]

    def free_run(self, x: Tensor) -> Tensor:
        """Forecasts over the last steps of x (windows, time, I), each fed back as the next input.

        The gradient goes through the feedback: (windows, free_run, 1, targets, 1).
        """
        # What the last given sample leads to is the first of them.
        y, state = self.network(x[:, : x.size(1) - self._free + 1])
        value = y[:, -1:]
        values = [value]
        for _ in range(self._free - 1):
            value, state = self.network(value, state)
            values.append(value)
        every = torch.cat(values, 1)
        return every.reshape(*every.shape[:-1], *self.layout.shape)

    def _disturbed(self, batch: Batch, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Level shifts and noise, as the recipe has them."""
        training = self.recipe.training
        if training.level_shift:
            level = torch.rand(batch.windows, device=x.device, dtype=x.dtype) * 2 - 1
            into, out = batch.of_windows(training.level_shift * level)
            x, truth = x + into, truth + out
        if training.input_noise:
            x = x + training.input_noise * torch.randn_like(x)
        return x, truth

    def validation_step(self, batch: Batch) -> None:
        """The loss, and the accuracy where that is what counts, over part of the validation."""
        truth = self.future(batch.origins)
        y = self.forecasts(batch, self.inputs[batch.rows])
        accuracy = None
        if self.recipe.training.monitor == "accuracy":
            floor = self.recipe.evaluation.accuracy_floor
            accuracy = 1 - relative_error(y[..., self.layout.median], truth, floor)
        self._sums.append((truth.shape.numel(), self.loss(y, truth), accuracy))

    def on_validation_epoch_end(self) -> None:
        """What the best epoch is chosen by, and what the history is to hold."""
        count = sum(n for n, _, _ in self._sums)
        loss = sum(float(value) * n for n, value, _ in self._sums) / count
        self._seen = {"validation_loss": loss}
        if self._solver is not None:
            self._seen["penalty"] = self._penalty()
        monitored = loss
        if self.recipe.training.monitor == "accuracy":
            accuracy = sum(float(value) * n for n, _, value in self._sums) / count  # type: ignore[arg-type,misc]
            self._seen["accuracy"], monitored = accuracy, -accuracy
        self._sums = []
        if self.closed_loop is not None:
            forecast = self.closed_loop.run(self.network, self.inputs, self.layout.median)
            near, whole = self.closed_loop.errors(forecast)
            self._seen |= {"closed_loop_near": near, "closed_loop_all": whole}
            if self.on_forecast is not None and self.global_rank == 0:
                self.on_forecast(self.current_epoch, forecast)
            if self.recipe.training.monitor == "closed_loop":
                monitored = whole
        both = self.world_size > 1
        for name, value in (("validation_loss", loss), ("monitored", monitored)):
            # Apple's devices have no float64.
            dtype = torch.float32 if self.device.type == "mps" else torch.float64
            exact = torch.tensor(value, dtype=dtype)
            self.log(name, exact, batch_size=1, sync_dist=both, logger=False)
        self._seen["monitored"] = monitored

    def on_train_epoch_end(self) -> None:
        """Add a row to the history; stop a run whose losses are no numbers any more."""
        row = {
            "epoch": self.current_epoch,
            "train_loss": self._mean_loss(),
            "validation_loss": math.nan,
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            **self._seen,
        }
        # Gates that are saturated by an infinite weight may still give finite losses.
        weights = all(bool(weight.isfinite().all()) for weight in self.network.parameters())
        if not weights or not all(map(math.isfinite, row.values())):
            raise TrainingError(self._diverged(row))
        self.seconds += time.perf_counter() - self._clock
        self.history.append(row)
        self.write_history()
        if self.logger is not None:
            figures = {name: row[name] for name in row if name not in ("epoch", "monitored")}
            self.logger.log_metrics(figures, step=self.current_epoch)
        schedule = self.lr_schedulers()
        if self._grouped and isinstance(schedule, ReduceLROnPlateau):
            # As early stopping sees it, so that all processes go on with one rate.
            schedule.step(self.trainer.callback_metrics["monitored"])

    def _mean_loss(self) -> float:
        """The mean over all predictions of the epoch, those of every process."""
        sums = torch.tensor([float(self._total), float(self._count)], dtype=torch.float64)
        if self.world_size > 1:
            whole = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
            sums = torch.as_tensor(whole).cpu()
        return float(sums[0] / sums[1])

    def _diverged(self, row: dict[str, float]) -> str:
        training, table = self.recipe.training, self.recipe.optimiser
        return (
            f"training diverged in epoch {self.current_epoch} (train loss "
            f"{row['train_loss']:g}, validation loss {row['validation_loss']:g}): lower "
            f"optimiser.learning_rate (now {table.learning_rate:g}) or set a "
            f"smaller training.gradient_clip (now {training.gradient_clip:g}"
            f"{', which clips nothing' if not training.gradient_clip else ''})"
        )

    def kept(self) -> dict[str, float]:
        """The history's row of the best epoch, or of the last one where the recipe keeps that."""
        if self.recipe.training.keep == "last":
            return self.history[-1]
        return min(self.history, key=lambda row: row["monitored"])

    def write_history(self) -> None:
        """The history as CSV, whole or not at all."""
        if self.history_path is None or self.global_rank:
            return
        names = [name for name in self.history[0] if name != "monitored"]
        lines = [",".join(names)]
        lines += [",".join(str(row[name]) for name in names) for row in self.history]
        part = self.history_path.with_suffix(".part")
        part.write_text("\n".join(lines) + "\n")
        os.replace(part, self.history_path)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """History and clock go on where they stopped."""
        checkpoint["history"], checkpoint["seconds"] = list(self.history), self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """History and clock go on where they stopped."""
        self.history, self.seconds = list(checkpoint["history"]), checkpoint["seconds"]


# Lightning looks at the arguments of training_step at every step: this is where it finds them.
Task.training_step.__signature__ = inspect.signature(Task.training_step)  # type: ignore[attr-defined]
