"""A run whose losses are no numbers any more: what it says, and what it leaves."""

import pytest
import torch

import runs
from fastlstm import model_file
from fastlstm.train import fit
from fastlstm.train.loop import Task, TrainingError

DIVERGING = {
    "optimiser.name": "sgd",
    "optimiser.learning_rate": 1e30,
    "optimiser.schedule": "constant",
    "training.gradient_clip": 0.0,
}


@pytest.mark.parametrize("name", ["sgd", "lbfgs"])
def test_a_diverging_run_costs_nothing_that_was_saved(tmp_path, name):
    first = fit(runs.small(), tmp_path / "run", progress=False)
    before = {path.name: path.read_bytes() for path in first.files}
    with pytest.raises(TrainingError) as error:
        runs.quick(runs.small(**{**DIVERGING, "optimiser.name": name}), tmp_path / "run")
    message = str(error.value)
    assert message.startswith("training diverged in epoch 0 (train loss ")
    assert "lower optimiser.learning_rate (now 1e+30) or set a smaller training.grad" in message
    assert "(now 0, which clips nothing)" in message
    assert {path.name: path.read_bytes() for path in first.files} == before
    # And the next good run clears what the bad one left.
    again = runs.quick(runs.small(), tmp_path / "run")
    assert runs.model_bytes(again) == before["model.safetensors"]
    assert not (tmp_path / "run" / "unfinished").exists()


def test_lbfgs_that_diverges_later_leaves_its_best_network(tmp_path, monkeypatch):
    """A weight that is no number in the third epoch, as an overflow leaves it."""
    recipe = runs.small(
        **{
            "optimiser.name": "lbfgs",
            "optimiser.schedule": "constant",
            "training.batch_size": 0,
            "training.gradient_clip": 0.0,
        }
    )
    step = Task.batch_loss

    def overflow(task, *batch):
        if task.current_epoch == 2:
            with torch.no_grad():
                next(task.parameters())[0] = float("inf")
        return step(task, *batch)

    monkeypatch.setattr(Task, "batch_loss", overflow)
    with pytest.raises(TrainingError, match=r"in epoch 2 .*; the best network before that is in "):
        runs.quick(recipe, tmp_path / "run")
    monkeypatch.undo()
    two = runs.quick(
        recipe.model_copy(
            update={"training": recipe.training.model_copy(update={"max_epochs": 2})}
        ),
        tmp_path / "two",
    )
    left = model_file.load(tmp_path / "run" / "unfinished" / "model.safetensors")
    assert left.layers[1].weight_hh_l0.tolist() == two.model.layers[1].weight_hh_l0.tolist()


def test_the_best_network_before_a_divergence_is_saved(tmp_path, monkeypatch):
    step = Task.batch_loss

    def diverge(task, *batch):
        loss = step(task, *batch)
        if task.current_epoch != 2:
            return loss
        task._total = task._total * float("nan")
        return loss * float("nan")

    monkeypatch.setattr(Task, "batch_loss", diverge)
    with pytest.raises(TrainingError, match=r"in epoch 2 .*; the best network before that is in "):
        runs.quick(runs.small(), tmp_path / "run")
    left = tmp_path / "run" / "unfinished" / "model.safetensors"
    layers = [layer.kind for layer in model_file.load(left).layers]
    assert layers == ["Affine", "LSTM", "Dense", "Affine"]
    # A new run there puts what was left aside, and does not lose it.
    monkeypatch.undo()
    before = left.read_bytes()
    runs.quick(runs.small(), tmp_path / "run")
    assert (tmp_path / "run" / "unfinished.old" / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "run" / "unfinished").exists()
