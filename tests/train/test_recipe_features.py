"""What a recipe may ask for beside plain training, end to end: the saved Model shows it."""

import numpy as np
import pytest
import torch

import runs
from fastlstm import reference
from fastlstm.train import load_recipe
from fastlstm.train.fit import prepared

BASE = {k: v for k, v in runs.SMALL.items() if not k.startswith("series.")}
DENSE = {"kind": "Dense", "output_size": 1}


@pytest.fixture
def known(tmp_path):
    """A value that nothing foretells but a column that is known ahead: y[t] = 2 h[t] - 1."""
    h = np.random.default_rng(0).integers(0, 2, 400).astype(float)
    lines = [f"{2 * b - 1},{b}" for b in h]
    (tmp_path / "data.csv").write_text("\n".join(["y,h", *lines]) + "\n")
    overrides = {
        **BASE,
        "series.input": ["y"],
        "training.max_epochs": 30,
        "training.patience": 30,
        "optimiser.learning_rate": 0.1,
        "windows.warm_up": 0,
    }
    return h, tmp_path / "data.csv", overrides


def test_a_column_known_ahead_is_learnt_and_streamed_by_hand(known, tmp_path):
    h, path, overrides = known
    blind = runs.quick(load_recipe("sine", path, overrides), tmp_path / "blind")
    recipe = load_recipe("sine", path, {**overrides, "series.known_ahead": ["h"]})
    seeing = runs.quick(recipe, tmp_path / "seeing")
    assert blind.metrics["rmse"] > 0.9
    assert seeing.metrics["rmse"] < 0.1
    assert list(seeing.model.metadata["network_inputs"]) == ["y", "h+1"]
    # By hand: with the value at t the column at t + 1, and out comes the value at t + 1.
    y = 2 * h - 1
    stream = seeing.model.stream()
    found = [stream.step(np.float32([y[t], h[t + 1]]))[0] for t in range(399)]
    error = np.array(found)[339:] - y[340:]
    assert seeing.metrics["steps"] == 60
    assert seeing.metrics["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)


def test_direct_forecasts_see_a_known_column_at_each_step_ahead(known, tmp_path):
    h, path, overrides = known
    layers = [{"kind": "LSTM", "hidden_size": 6}, {"kind": "Dense", "output_size": 3}]
    direct = {"windows.horizon": 3, "windows.direct": True, "network.layers": layers}
    recipe = load_recipe("sine", path, {**overrides, **direct, "series.known_ahead": ["h"]})
    result = runs.quick(recipe, tmp_path / "run")
    y = 2 * h - 1
    x = np.stack([y[:397], h[1:398], h[2:399], h[3:400]], 1).astype(np.float32)
    out = reference.run(result.model, x)
    errors = np.stack([out[339:, k] - y[340 + k : 340 + k + 58] for k in range(3)])
    assert result.metrics["steps"] == 58
    assert result.metrics["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)
    found = [row["rmse"] for row in result.metrics["by_horizon"]]
    assert found == pytest.approx(np.sqrt((errors**2).mean(1)).tolist(), rel=1e-4)
    assert max(found) < 0.3


def test_quantiles_bracket_the_noise(tmp_path):
    """Of y = noise, uniform in [0, 1), the quantiles are themselves."""
    np.save(tmp_path / "noise.npy", np.random.default_rng(1).random(600))
    overrides = {
        **BASE,
        "network.quantiles": [0.1, 0.5, 0.9],
        "network.layers": [{"kind": "LSTM", "hidden_size": 2}, {"kind": "Dense", "output_size": 3}],
        "training.max_epochs": 30,
        "training.input_noise": 0.5,
        "optimiser.learning_rate": 0.05,
    }
    recipe = load_recipe("sine", tmp_path / "noise.npy", overrides)
    result = runs.quick(recipe, tmp_path / "run")
    values = np.load(tmp_path / "noise.npy")
    out = reference.run(result.model, values[:, None].astype(np.float32))[509:599]
    truth = values[510:600, None]
    q = np.array([0.1, 0.5, 0.9])
    gap = truth - out
    assert result.metrics["pinball"] == pytest.approx(
        np.maximum(q * gap, (q - 1) * gap).mean(), rel=1e-4
    )
    inside = ((truth[:, 0] >= out[:, 0]) & (truth[:, 0] <= out[:, 2])).mean()
    assert result.metrics["coverage"] == pytest.approx(inside)
    np.testing.assert_allclose(out.mean(0), q, atol=0.1)
    # The forecast itself is the median.
    assert result.metrics["mae"] == pytest.approx(np.abs(gap[:, 1]).mean(), rel=1e-4)


def test_a_learned_initial_state_is_trained_and_saved(tmp_path):
    recipe = runs.small(**{"network.learned_initial_state": True, "windows.warm_up": 0})
    task = prepared(recipe)
    assert task.network.layers[0].h0.abs().sum() == 0
    result = runs.quick(recipe, tmp_path / "run")
    lstm = result.model.layers[1]
    assert (np.abs(lstm.h0) > 1e-4).all()
    assert (np.abs(lstm.c0) > 1e-4).all()


def test_the_forget_gate_begins_where_the_recipe_says():
    task = prepared(runs.small(**{"network.forget_gate_bias": 1.5}))
    lstm = task.network.layers[0]
    both = (lstm.bias_ih_l0 + lstm.bias_hh_l0).tolist()
    assert both[4:8] == [1.5] * 4
    plain = prepared(runs.small()).network.layers[0]
    assert (plain.bias_ih_l0 + plain.bias_hh_l0).tolist()[4:8] != [1.5] * 4


@pytest.mark.parametrize("name", ["level_shift", "input_noise"])
def test_what_disturbs_training_leaves_the_validation_alone(tmp_path, name):
    """Without a step of training worth the name both validations are the same, to the bit."""
    still = {"optimiser.learning_rate": 1e-30, "training.max_epochs": 2}
    plain = runs.quick(runs.small(**still), tmp_path / "plain")
    disturbed = runs.quick(runs.small(**still, **{f"training.{name}": 0.5}), tmp_path / "disturbed")
    for kind, same in (("validation_loss", True), ("train_loss", False)):
        ours, theirs = runs.column(disturbed, kind), runs.column(plain, kind)
        assert (ours == theirs).all() == same
    # And each epoch draws anew.
    assert np.ptp(runs.column(disturbed, "train_loss")) > 1e-4
    assert np.ptp(runs.column(plain, "train_loss")) < 1e-6


def test_the_accuracy_chooses_the_epoch_and_is_by_hand(tmp_path):
    recipe = runs.small(
        **{
            "training.monitor": "accuracy",
            "evaluation.accuracy_floor": 0.3,
            "optimiser.learning_rate": 0.1,
            "training.max_epochs": 12,
            "training.patience": 12,
        }
    )
    result = runs.quick(recipe, tmp_path / "run")
    accuracy = runs.column(result, "accuracy")
    assert result.metrics["best_epoch"] == np.argmax(accuracy)
    values = runs.small_series()
    mean, deviation = values[:210].mean(), values[:210].std()
    # As the validation looks: one stream that begins 20 steps before the first forecast.
    x = values[189:254, None].astype(np.float32)
    scaled = (reference.run(result.model, x)[20:, 0] - mean) / deviation
    truth = (values[210:255] - mean) / deviation
    expected = 1 - np.mean(np.abs(truth - scaled) / (np.abs(truth) + 0.3))
    assert accuracy.max() == pytest.approx(expected, rel=1e-5)


def test_the_best_epoch_is_kept_or_the_last(tmp_path):
    """The rate is so great that the last epoch is not the best one."""
    restless = {
        "optimiser.name": "adam",
        "optimiser.learning_rate": 0.5,
        "optimiser.schedule": "constant",
        "training.max_epochs": 12,
    }
    best = runs.quick(runs.small(**restless), tmp_path / "best")
    last = runs.quick(runs.small(**restless, **{"training.keep": "last"}), tmp_path / "last")
    losses = runs.column(last, "validation_loss")
    assert losses.argmin() != 11
    assert (best.metrics["best_epoch"], last.metrics["best_epoch"]) == (losses.argmin(), 11)
    assert (best.metrics["selected_on"], last.metrics["selected_on"]) == ("validation", "nothing")
    for result, name in ((best, "best"), (last, "last")):
        path = result.folder / "checkpoints" / f"{name}.ckpt"
        state = torch.load(path, weights_only=True)["state_dict"]
        dense = next(layer for layer in result.model.layers if layer.kind == "Dense")
        np.testing.assert_array_equal(dense.weight, state["network.layers.1.weight"])
        assert result.metrics["validation_loss"] == losses[result.metrics["best_epoch"]]
