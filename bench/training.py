"""What training costs beside torch itself: a step as `fit` runs it, beside bare loops of torch.

The bare loops run between the epochs of one Lightning run, in an order drawn anew each round, over
the same batches and from the same weights; a loop whose losses differ is not timed. All of them
keep freed memory as `fit` does (train/memory.py), which alone halves the time of long sequences.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from fastlstm.errors import FastLSTMError
from fastlstm.train.fit import prepared
from fastlstm.train.optimisers import configured
from fastlstm.train.recipe import parse_recipe
from fastlstm.train.trainer import surroundings, trainer_of

from . import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlstm.train.loop import Task

RESULTS = Path("bench/results/training.json")
OURS, PLAIN, FASTEST = "fastlstm", "bare torch", "bare torch, our batches"
# Losses of an epoch from the same weights over the same batches, summed in other orders.
AGREE = 1e-4


@dataclass(frozen=True)
class Row:
    """One loop on one shape. Times are of a step, or with L-BFGS of one evaluation of the loss."""

    shape: str
    loop: str
    median_ms: float
    ratio: float  # our time over this loop's, the median over the rounds
    steps: int
    rounds: int


BALL: dict[str, Any] = {
    "name": "ball",
    "series": {
        "generator": {"kind": "ball", "sequences": 6100},
        "scaling": "none",
        "split": {"train": 6000, "validation": 50, "test": 50, "by": "sequence"},
    },
    "windows": {"length": 0, "loss_at": "last"},
    "network": {
        "layers": [{"kind": "LSTM", "hidden_size": 8}, {"kind": "Dense", "output_size": 1}]
    },
    "training": {"batch_size": 100, "gradient_clip": 0.0},
}
WAVES: dict[str, Any] = {
    "name": "waves",
    "series": {
        "generator": {"kind": "waves", "sequences": 100, "samples": 1000, "period": 20},
        "scaling": "none",
        "split": {"train": 97, "validation": 2, "test": 1, "by": "sequence"},
    },
    "windows": {"length": 0},
    "network": {
        "layers": [
            {"kind": "LSTM", "hidden_size": 64},
            {"kind": "LSTM", "hidden_size": 64},
            {"kind": "Dense", "output_size": 1},
        ]
    },
    # Two evaluations a step keep the measurement short; each of them costs the same.
    "optimiser": {"name": "lbfgs", "learning_rate": 0.5, "closure_calls": 2},
    "training": {"batch_size": 0, "gradient_clip": 0.0},
}


class Plain(nn.Module):
    """The network as it is written by hand: one nn.LSTM of several layers, and nn.Linear."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        *lstms, _ = task.network.layers
        hidden = int(lstms[0].hidden_size)  # type: ignore[arg-type]
        self.lstm = nn.LSTM(1, hidden, len(lstms), batch_first=True)
        self.dense = nn.Linear(hidden, 1)
        with torch.no_grad():
            for ours, theirs in zip(self.parameters(), task.network.parameters(), strict=True):
                ours.copy_(theirs)


class Loop:
    """A bare loop: one call is an epoch, and gives its mean loss."""

    def __init__(
        self, task: Task, module: nn.Module, losses: Callable[[int], Iterator[Any]], fused: bool
    ) -> None:
        """`losses` gives for each batch of an epoch a function that computes its loss."""
        table = task.recipe.optimiser
        parameters = module.parameters()
        self.losses, self.epoch = losses, 0
        self.optimiser = configured(table, parameters, table.learning_rate, 1, fused=fused)

    def __call__(self) -> float:
        firsts: list[Tensor] = []
        for loss_of in self.losses(self.epoch):
            # Of L-BFGS: the first is of the weights before the step, as in our history.
            seen: list[Tensor] = []

            def closure(
                loss_of: Callable[[], Tensor] = loss_of, seen: list[Tensor] = seen
            ) -> Tensor:
                self.optimiser.zero_grad()
                loss = loss_of()
                loss.backward()  # type: ignore[no-untyped-call]
                seen.append(loss.detach())
                return loss

            self.optimiser.step(closure)
            firsts.append(seen[0])
        self.epoch += 1
        return float(torch.stack(firsts).mean())


def plain_loop(task: Task) -> Loop:
    """As a practitioner writes it: padded tensors, packed where lengths differ, Adam as it is."""
    module = Plain(task)
    segments = task.parts.train
    lengths = torch.tensor([s.end - s.first - 1 for s in segments])
    inputs = nn.utils.rnn.pad_sequence(
        [task.inputs[s.first : s.end] for s in segments], batch_first=True
    )
    last = torch.stack([task.inputs[s.end - 1] for s in segments])
    size = task.recipe.training.batch_size or len(segments)

    def losses(epoch: int) -> Iterator[Any]:
        order = torch.randperm(len(segments), generator=torch.Generator().manual_seed(epoch))
        for batch in torch.split(order, size):
            if task.recipe.windows.loss_at == "last":
                yield lambda batch=batch: last_loss(inputs[batch], lengths[batch], last[batch])
            else:
                yield lambda batch=batch: every_loss(inputs[batch])

    def last_loss(x: Tensor, lengths: Tensor, truth: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = module.lstm(packed)
        return nn.functional.mse_loss(module.dense(h[-1]), truth)

    def every_loss(x: Tensor) -> Tensor:
        y, _ = module.lstm(x[:, :-1])
        return nn.functional.mse_loss(module.dense(y), x[:, 1:])

    return Loop(task, module, losses, fused=False)


def fastest_loop(task: Task) -> Loop:
    """The batches, the network and the fused optimiser that we train with, and nothing around."""
    twin = prepared_again(task)

    def losses(epoch: int) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(epoch)
        batches = task.batches
        order = torch.randperm(len(batches.windows), generator=generator)
        for numbers in torch.split(order, batches.size):
            batch = batches.windows.batch(numbers)
            yield lambda batch=batch: nn.functional.mse_loss(
                twin.forecasts(batch, twin.inputs[batch.rows])[..., 0], twin.future(batch.origins)
            )

    return Loop(task, twin.network, losses, fused=True)


def prepared_again(task: Task) -> Task:
    """Another network of the same recipe, with the same weights."""
    twin = prepared(task.recipe)
    twin.network.load_state_dict(task.network.state_dict())
    return twin


class Rounds(Callback):
    """Times the batches of every epoch, and between epochs one of each bare loop."""

    def __init__(self, loops: dict[str, Loop]) -> None:
        """Epoch 0 warms up and is where losses are compared."""
        self.loops, self.rng = loops, random.Random(0)
        self.seconds: dict[str, list[float]] = {name: [] for name in (OURS, *loops)}
        self.losses: dict[str, float] = {}
        self.began = 0.0

    def on_train_epoch_start(self, trainer: Any, task: Any) -> None:
        """The bare loops, then the clock for ours."""
        names = list(self.loops)
        self.rng.shuffle(names)
        for name in names:
            began = time.perf_counter()
            loss = self.loops[name]()
            self.seconds[name].append(time.perf_counter() - began)
            self.losses.setdefault(name, loss)
        self.began = time.perf_counter()

    def on_validation_start(self, trainer: Any, task: Any) -> None:
        """All batches of the epoch are done."""
        self.seconds[OURS].append(time.perf_counter() - self.began)
        self.losses.setdefault(OURS, float(task._total) / task._count)


def measure(document: dict[str, Any], rounds: int, seed: int = 0) -> list[Row]:
    """Train `rounds` epochs after one to warm up; raises FastLSTMError on other losses."""
    changed = {**document["training"], "max_epochs": rounds + 1, "patience": rounds + 1}
    recipe = parse_recipe({**document, "training": {**changed, "seed": seed}})
    with surroundings(recipe), tempfile.TemporaryDirectory() as folder:
        task = prepared(recipe)
        timed = Rounds({PLAIN: plain_loop(task), FASTEST: fastest_loop(task)})
        trainer = trainer_of(task, Path(folder), progress=False)
        trainer.callbacks.append(timed)  # type: ignore[attr-defined]
        trainer.fit(task)
    steps = len(task.batches)
    if recipe.optimiser.name == "lbfgs":
        steps *= recipe.optimiser.closure_calls
    ours = timed.seconds[OURS][1:]
    rows = []
    for name, (_, *seconds) in timed.seconds.items():
        if abs(timed.losses[name] / timed.losses[OURS] - 1) > AGREE:
            raise FastLSTMError(
                f"{recipe.name}: {name} has a loss of {timed.losses[name]:g} where ours is "
                f"{timed.losses[OURS]:g}: not the same training, so not timed"
            )
        ratio = statistics.median(a / b for a, b in zip(ours, seconds, strict=True))
        median = 1e3 * statistics.median(seconds) / steps
        rows.append(Row(recipe.name, name, median, ratio, steps, rounds))
    return rows


def table(rows: list[Row]) -> str:
    """For a terminal: the time of a step, and ours over it."""
    lines = [f"{'shape':8}{'loop':26}{'ms a step':>12}{'ours / this':>14}"]
    lines += [f"{r.shape:8}{r.loop:26}{r.median_ms:12.3f}{r.ratio:14.3f}" for r in rows]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure both shapes, print the table, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m fastlstm.bench.training", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"by default {RESULTS}")
    parser.add_argument("--rounds", type=int, default=40, help="epochs of ball; waves take a tenth")
    parser.add_argument("--only", choices=["ball", "waves"], help="one shape")
    chosen = parser.parse_args(arguments)
    before, rows = machine.describe(), []
    for document, rounds in ((BALL, chosen.rounds), (WAVES, max(2, chosen.rounds // 10))):
        if chosen.only in (None, document["name"]):
            print(f"timing {document['name']}", file=sys.stderr)
            rows += measure(document, rounds)
    print(table(rows))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": before, "rows": [asdict(row) for row in rows]}
    chosen.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {chosen.json}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
