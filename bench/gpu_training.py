"""The same training on the CPU and on a CUDA device: loss curves, time of a step, share of cuDNN.

Without such a device it says so, writes nothing and is no failure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from fastlstm.train.fit import prepared
from fastlstm.train.recipe import parse_recipe
from fastlstm.train.trainer import surroundings, trainer_of

from . import machine
from .training import WAVES

RESULTS = Path("bench/results/gpu_training.json")
WIDE: dict[str, Any] = {
    "name": "wide",
    "series": {
        "generator": {"kind": "waves", "sequences": 70, "samples": 500, "period": 20},
        "scaling": "none",
        "split": {"train": 64, "validation": 4, "test": 2, "by": "sequence"},
    },
    "windows": {"length": 0},
    "network": {
        "layers": [{"kind": "LSTM", "hidden_size": 512}, {"kind": "Dense", "output_size": 1}]
    },
    "training": {"batch_size": 64, "gradient_clip": 0.0},
}
# What cuDNN's recurrent kernels and the matrix products that they call are named after.
KERNELS = ("rnn", "lstm", "gemm", "cudnn", "cutlass", "elemwise")


@dataclass(frozen=True)
class Row:
    """One network on one kind of device; a step with L-BFGS is one evaluation of the loss."""

    network: str
    device: str
    seconds_a_step: float
    losses: list[float]
    cudnn_share: float | None  # of the time that kernels take, from torch.profiler


class Epochs(Callback):
    """The time of each epoch's batches, the device's queue emptied."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def on_train_epoch_start(self, trainer: Any, task: Any) -> None:
        """Start the clock."""
        _wait()
        self.began = time.perf_counter()

    def on_validation_start(self, trainer: Any, task: Any) -> None:
        """All batches are done."""
        _wait()
        self.seconds.append(time.perf_counter() - self.began)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def train(document: dict[str, Any], accelerator: str, epochs: int, threads: int) -> Row:
    """Train `epochs` epochs and, on a GPU, one step more under the profiler."""
    changed = {"max_epochs": epochs, "patience": epochs, "accelerator": accelerator}
    training = {**document["training"], **changed, "threads": threads}
    recipe = parse_recipe({**document, "training": training})
    timed = Epochs()
    with surroundings(recipe), tempfile.TemporaryDirectory() as folder:
        task = prepared(recipe)
        trainer = trainer_of(task, Path(folder), progress=False)
        trainer.callbacks.append(timed)  # type: ignore[attr-defined]
        trainer.fit(task)
        share = cudnn_share(task) if accelerator == "gpu" else None
    steps = len(task.batches)
    if recipe.optimiser.name == "lbfgs":
        steps *= recipe.optimiser.closure_calls
    # The first epoch chooses kernels and fills caches.
    seconds = statistics.median(timed.seconds[1:]) / steps
    device = torch.cuda.get_device_name() if accelerator == "gpu" else "cpu"
    return Row(recipe.name, device, seconds, [r["train_loss"] for r in task.history], share)


def cudnn_share(task: Any) -> float:
    """The part of one step's time on the device that is spent in cuDNN's kernels."""
    task.to("cuda")
    task.inputs, task.targets = task.inputs.cuda(), task.targets.cuda()
    (batch, _), *_ = task.batches
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        y = task.forecasts(batch, task.inputs[batch.rows])
        task.loss(y, task.future(batch.origins)).backward()
        _wait()
    kernels = [e for e in profile.events() if e.device_type.name == "CUDA"]
    whole = sum(event.self_device_time_total for event in kernels)
    found = sum(
        event.self_device_time_total
        for event in kernels
        if any(word in event.name.lower() for word in KERNELS)
    )
    return found / whole if whole else 0.0


def table(rows: list[Row]) -> str:
    """For a terminal."""
    lines = [f"{'network':10}{'device':28}{'s a step':>10}{'last loss':>14}{'cuDNN':>8}"]
    for row in rows:
        share = "" if row.cudnn_share is None else f"{row.cudnn_share:.0%}"
        lines.append(
            f"{row.network:10}{row.device:28}{row.seconds_a_step:10.4f}"
            f"{row.losses[-1]:14.6g}{share:>8}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Train both networks on both, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m fastlstm.bench.gpu_training", description=__doc__
    )
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"by default {RESULTS}")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device that torch can use: nothing measured, nothing written")
        return 0
    rows = []
    for document in (WAVES, WIDE):
        for accelerator in ("cpu", "gpu"):
            print(f"training {document['name']} on the {accelerator}", file=sys.stderr)
            rows.append(train(document, accelerator, chosen.epochs, chosen.threads))
    print(table(rows))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "device": torch.cuda.get_device_name(),
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "machine": machine.describe(),
        "rows": [asdict(row) for row in rows],
    }
    chosen.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {chosen.json}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
