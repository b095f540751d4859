"""Training on own forecasts fed back, against a plain loop."""

import pytest
import torch

import runs
from fastlstm.errors import RecipeError
from fastlstm.train.fit import prepared
from fastlstm.train.loop import Task

FREE = {
    "windows.free_run": 6,
    "windows.free_run_after": 2,
    "training.max_epochs": 4,
    "training.gradient_clip": 0.0,
}


def looped_loss(task, batch):
    """Fifteen samples are given; the first of six forecasts follows the last of them."""
    network, total, count = task.network, 0.0, 0
    for rows in batch.rows:
        x = task.inputs[rows][None]
        given = x[:, :15]
        truth = task.targets[rows + 1][-6:, 0]
        for step in range(6):
            value = network(given)[0][:, -1:]
            total, count = total + (value[0, 0, 0] - truth[step]) ** 2, count + 1
            given = torch.cat([given, value], 1)
    return total / count


def test_loss_and_gradients_are_those_of_a_loop():
    """In float64: the whole window is run anew for each forecast, from the beginning."""
    recipe = runs.small(**FREE, **{"training.precision": "64"})
    task = prepared(recipe).double()
    task.inputs, task.targets = task.inputs.double(), task.targets.double()
    task._free = 6
    batch = next(iter(task.train_dataloader()))
    loss = task.training_step(batch)
    loss.backward()
    ours = [p.grad.clone() for p in task.network.parameters()]
    task.zero_grad()
    expected = looped_loss(task, batch[0])
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    for found, parameter in zip(ours, task.network.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-9, atol=1e-12)


def test_it_begins_with_the_epoch_that_the_recipe_says(tmp_path, monkeypatch):
    seen, free_run = [], Task.free_run

    def noted(task, x):
        seen.append(task.current_epoch)
        return free_run(task, x)

    monkeypatch.setattr(Task, "free_run", noted)
    runs.quick(runs.small(**FREE), tmp_path / "run")
    assert set(seen) == {2, 3}


def test_l_bfgs_forgets_the_curvature_of_the_other_loss(tmp_path, monkeypatch):
    counts, start = [], Task.on_train_epoch_start

    def noted(task):
        start(task)
        state = task.trainer.optimizers[0].state
        counts.append(next(iter(state.values()), {}).get("n_iter", 0))

    monkeypatch.setattr(Task, "on_train_epoch_start", noted)
    overrides = {"optimiser.name": "lbfgs", "optimiser.closure_calls": 4, "training.batch_size": 0}
    runs.quick(runs.small(**FREE, **overrides), tmp_path / "run")
    assert counts == [0, 4, 0, 4]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"windows.free_run": 20}, "free_run must be less than length, found 20 and 20"),
        ({"windows.horizon": 2}, r"needs windows\.horizon 1"),
        ({"windows.loss_at": "last"}, "free_run must be less than length"),
    ],
)
def test_what_cannot_run_freely_is_refused(overrides, message):
    with pytest.raises(RecipeError, match=message):
        runs.small(**{**FREE, **overrides})
