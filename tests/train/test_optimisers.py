"""Epochs of training against bare torch loops over the same weights and batches, and schedules.

Both round differently only where sums are ordered differently, so weights agree within some
thousand float32 roundings after a few dozen steps.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import runs
from fastlstm.train.fit import prepared

LAYERS = runs.SMALL["network.layers"]
CONSTANT = {"optimiser.schedule": "constant", "training.max_epochs": 3}
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


class Bare(nn.Module):
    """What a practitioner writes: nn.LSTM and nn.Linear."""

    def __init__(self, network):
        super().__init__()
        lstm, _ = network.layers
        self.lstm = nn.LSTM(1, lstm.hidden_size, batch_first=True)
        self.dense = nn.Linear(lstm.hidden_size, 1)
        with torch.no_grad():
            for mine, theirs in zip(self.parameters(), network.parameters(), strict=True):
                mine.copy_(theirs)

    def forward(self, x, state=None):
        y, state = self.lstm(x, state)
        return self.dense(y), state


def trained(recipe, folder):
    """The weights of the last epoch, the history's training losses, and the untrained network."""
    torch.manual_seed(recipe.training.seed)
    task = prepared(recipe)
    result = runs.quick(recipe, folder)
    last = torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)
    weights = [w for name, w in last["state_dict"].items() if name.startswith("network.")]
    return task, weights, runs.column(result, "train_loss")


def starts(task, epoch):
    """The window starts of an epoch's batches: see test_batches.py."""
    count, size = len(task.train_dataloader().windows), task.train_dataloader().size
    seed = task.recipe.training.seed * 1_000_003 + epoch
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return [task.train_dataloader().windows.starts[k] for k in order.split(size)]


def bare_epochs(task, optimiser_of, clip=0.0):
    """The weights and mean losses after the recipe's epochs, in plain torch."""
    network = Bare(task.network)
    optimiser, losses = optimiser_of(network.parameters()), []
    z, length = task.inputs[:, 0], task.recipe.windows.length
    torch.set_num_threads(1)
    for epoch in range(task.recipe.training.max_epochs):
        total = count = 0
        for batch in starts(task, epoch):
            rows = batch[:, None] + torch.arange(length)

            def closure(rows=rows, seen=(seen := [])):
                optimiser.zero_grad()
                y, _ = network(z[rows].unsqueeze(-1))
                loss = ((y[:, 4:, 0] - z[rows + 1][:, 4:]) ** 2).mean()
                loss.backward()
                if clip:
                    nn.utils.clip_grad_norm_(network.parameters(), clip)
                seen.append(loss.item() * len(rows))
                return loss

            optimiser.step(closure)
            # Of L-BFGS's evaluations the first, which is of the weights before the step.
            total, count = total + seen[0], count + len(rows)
        losses.append(total / count)
    return list(network.parameters()), losses


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, 0.05, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, 0.05, weight_decay=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.05, weight_decay=0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.05, max_iter=4),
}


@pytest.mark.parametrize(
    ("name", "clip", "size"),
    [
        *((name, 0.0, 32) for name in OPTIMISERS),
        ("sgd", 0.05, 32),
        ("adam", 0.05, 32),
        # Twenty-two batches an epoch: more than one group of them.
        ("sgd", 0.05, 3),
    ],
)
def test_training_is_a_bare_torch_loop(tmp_path, name, clip, size):
    """Seven optimisers, with gradients clipped and as they are."""
    options = {
        "optimiser.name": name,
        "optimiser.learning_rate": 0.05,
        "training.batch_size": size,
    }
    if name == "lbfgs":
        options |= {"optimiser.closure_calls": 4, "training.batch_size": 0}
    else:
        options |= {"optimiser.weight_decay": 0.01}
    if name in ("sgd", "rmsprop"):
        options |= {"optimiser.momentum": 0.9}
    recipe = runs.small(**CONSTANT, **options, **{"training.gradient_clip": clip})
    task, weights, losses = trained(recipe, tmp_path / "run")
    bare, expected = bare_epochs(task, OPTIMISERS[name], clip)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for ours, theirs in zip(weights, bare, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), **CLOSE)


def test_packed_sequences_are_a_bare_loop_over_packed_sequences(tmp_path):
    """Sequences of 5 to 10 positions, loss at the last step, in batches of 7 of 24."""
    base = {k: v for k, v in runs.SMALL.items() if not k.startswith(("series.", "windows."))}
    overrides = {
        **base,
        **CONSTANT,
        "series.generator": {"kind": "ball", "sequences": 40},
        "series.split": {"train": 0.6, "validation": 0.2, "test": 0.2, "by": "sequence"},
        "windows": {"length": 0, "loss_at": "last"},
        "training.batch_size": 7,
        "training.gradient_clip": 0.0,
    }
    task, weights, losses = trained(runs.load_recipe("sine", overrides=overrides), tmp_path / "run")
    network = Bare(task.network)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    ends = {s.begin: s.end for s in task.parts.train}
    z = task.inputs[:, 0]
    torch.set_num_threads(1)
    for epoch in range(3):
        total = 0.0
        for batch in starts(task, epoch):
            sequences = [z[k : ends[k]] for k in batch.tolist()]
            packed = pack_sequence([s[:-1, None] for s in sequences], enforce_sorted=False)
            _, (h, _) = network.lstm(packed)
            truth = torch.stack([s[-1] for s in sequences])
            loss = ((network.dense(h[0])[:, 0] - truth) ** 2).mean()
            total += loss.item() * len(sequences)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert losses[epoch] == pytest.approx(total / 24, rel=1e-5)
    for ours, theirs in zip(weights, network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), **CLOSE)


def test_stateful_training_carries_the_state_and_no_gradient(tmp_path):
    """Three stretches of 69, four windows of 15 each; the state ends with the epoch."""
    options = {
        "windows.length": 15,
        "windows.stride": 1,
        "windows.stateful": True,
        "training.batch_size": 3,
        "training.gradient_clip": 0.0,
        "optimiser.name": "sgd",
        "optimiser.learning_rate": 0.1,
    }
    recipe = runs.small(**CONSTANT, **options)
    task, weights, losses = trained(recipe, tmp_path / "run")
    network, z = Bare(task.network), task.inputs[:, 0]
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    torch.set_num_threads(1)
    for epoch in range(3):
        generator = torch.Generator().manual_seed(epoch)
        begin = torch.arange(3) * 69 + int(torch.randint(69 - 4 * 15 + 1, (), generator=generator))
        state, total, count = None, 0.0, 0
        for k in range(4):
            rows = begin[:, None] + 15 * k + torch.arange(15)
            y, state = network(z[rows].unsqueeze(-1), state)
            state = tuple(vector.detach() for vector in state)
            skip = 4 if k == 0 else 0
            loss = ((y[:, skip:, 0] - z[rows + 1][:, skip:]) ** 2).mean()
            total, count = total + loss.item() * 3 * (15 - skip), count + 3 * (15 - skip)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert losses[epoch] == pytest.approx(total / count, rel=1e-5)
    for ours, theirs in zip(weights, network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), **CLOSE)


def test_averaged_weights_are_validated_and_saved(tmp_path):
    """EMA: w <- 0.9 w + 0.1 weight after each step, which the training itself never sees."""
    options = {"training.average_weights": 0.9, "training.gradient_clip": 0.0}
    recipe = runs.small(**CONSTANT, **options)
    task, weights, _ = trained(recipe, tmp_path / "run")
    network = Bare(task.network)
    mean, z = copy.deepcopy(network), task.inputs[:, 0]
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    torch.set_num_threads(1)
    first = True
    for epoch in range(3):
        for batch in starts(task, epoch):
            rows = batch[:, None] + torch.arange(20)
            y, _ = network(z[rows].unsqueeze(-1))
            loss = ((y[:, 4:, 0] - z[rows + 1][:, 4:]) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                for kept, weight in zip(mean.parameters(), network.parameters(), strict=True):
                    kept.copy_(weight if first else 0.9 * kept + 0.1 * weight)
            first = False
        with torch.no_grad():
            y, _ = mean(z[None, 189:254, None])
        validation = ((y[0, 20:, 0] - z[210:255]) ** 2).mean().item()
        found = runs.column(type("Run", (), {"folder": tmp_path / "run"}), "validation_loss")
        assert found[epoch] == pytest.approx(validation, rel=1e-5)
    for ours, theirs in zip(weights, mean.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), **CLOSE)


# Lightning steps the schedules where weights are averaged, and we do elsewhere.
@pytest.mark.parametrize("averaged", [0.0, 0.5])
@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_the_learning_rates_of_a_schedule_by_the_step(tmp_path, schedule, averaged):
    """Two steps an epoch; the history holds the rate after the epoch's last step."""
    recipe = runs.small(
        **{
            "optimiser.schedule": schedule,
            "optimiser.learning_rate": 0.02,
            "training.average_weights": averaged,
        }
    )
    rates = runs.column(runs.quick(recipe, tmp_path / "run"), "learning_rate")
    done = np.arange(2, 12, 2)
    if schedule == "cosine":
        expected = 0.02 * (1 + np.cos(np.pi * done / 10)) / 2
    else:
        # torch: up from 1/25 over 30 % of the steps, then down to 1/10,000 of that, as cosines.
        peak, low = 0.3 * 11 - 1, 0.02 / 25 / 1e4
        up = 0.02 / 25 + (0.02 - 0.02 / 25) * (1 - np.cos(np.pi * done / peak)) / 2
        fraction = (done - peak) / (10 - peak)
        expected = np.where(
            done <= peak, up, low + (0.02 - low) * (1 + np.cos(np.pi * fraction)) / 2
        )
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("averaged", [0.0, 0.1])
def test_a_plateau_halves_the_rate_after_epochs_without_a_better_validation(tmp_path, averaged):
    recipe = runs.small(
        **{
            "optimiser.schedule": "plateau",
            "optimiser.plateau_patience": 2,
            "optimiser.learning_rate": 0.2,
            "training.max_epochs": 20,
            "training.average_weights": averaged,
        }
    )
    result = runs.quick(recipe, tmp_path / "run")
    rate, best, bad, expected = 0.2, np.inf, 0, []
    for loss in runs.column(result, "validation_loss"):
        expected.append(rate)  # what the epoch was trained with
        # torch asks for a loss better by 1e-4 of itself.
        better = loss < best * (1 - 1e-4)
        best, bad = (loss, 0) if better else (best, bad + 1)
        if bad > 2:
            rate, bad = rate / 2, 0
    assert runs.column(result, "learning_rate").tolist() == expected
    assert expected[-1] < 0.2
