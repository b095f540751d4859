"""The last layer in closed form, against NumPy's own least squares, and the filters before it."""

import numpy as np
import pytest
import torch

import runs
from fastlstm import reference
from fastlstm.errors import ModelError, RecipeError
from fastlstm.train import Network
from fastlstm.train.cells import RNN
from fastlstm.train.fit import prepared
from fastlstm.train.least_squares import LeastSquares
from fastlstm.train.resonant import resonate
from fastlstm.train.trainer import surroundings

CHAIN = [
    {"kind": "Difference"},
    {"kind": "RNN", "hidden_size": 10, "resonant": {"memory": 30.0, "periods": [24.0, 8.0]}},
    {"kind": "Dense", "output_size": 3},
]
ECHO = {
    "windows.horizon": 3,
    "windows.direct": True,
    "network.layers": [{"kind": "Residual", "add": "target", "layers": CHAIN}],
    "optimiser.name": "least_squares",
    "optimiser.penalties": [1e-3, 1e-1, 10.0],
    "training.max_epochs": 3,
}


def before_training(recipe):
    with surroundings(recipe):
        return prepared(recipe)


def features_and_truth(task, recipe):
    """What goes into the last layer and what should come out of it, window by window in NumPy."""
    windows = recipe.windows
    z = task.inputs[:, 0].double().numpy()
    before = Network(list(task.network.layers)[:2]).double()
    rows, wanted = [], []
    part = task.parts.train[0]
    for start in range(part.first, part.end - 3 - windows.length + 1, windows.stride):
        x = torch.tensor(z[start : start + windows.length])[None, :, None]
        h = before(x)[0][0].detach().numpy()
        for t in range(windows.warm_up, windows.length):
            rows.append(h[t])
            wanted.append(z[start + t + 1 : start + t + 4] - z[start + t])
    return np.array(rows), np.array(wanted)


@pytest.mark.parametrize("penalty", [1e-3, 10.0])
def test_an_epoch_solves_the_ridge_problem(tmp_path, penalty):
    """Against lstsq of the augmented system, to 1e-6 of the greatest weight."""
    overrides = {"optimiser.penalties": [penalty], "training.max_epochs": 1}
    recipe = runs.small(**{**ECHO, **overrides})
    done = runs.quick(recipe, tmp_path / "run")
    x, y = features_and_truth(before_training(recipe), recipe)
    root = np.sqrt(penalty * np.square(x).sum() / x.shape[1])
    ones = np.ones((len(x), 1))
    above = np.hstack([x, ones])
    below = np.hstack([root * np.eye(10), np.zeros((10, 1))])
    solution, *_ = np.linalg.lstsq(np.vstack([above, below]), np.vstack([y, np.zeros((10, 3))]))
    head = next(layer for layer in done.model.layers if layer.kind == "Dense")
    bound = 1e-6 * max(1, np.abs(solution).max())
    np.testing.assert_allclose(head.weight.T, solution[:10], atol=bound, rtol=1e-5)
    np.testing.assert_allclose(head.bias, solution[10], atol=bound, rtol=1e-5)
    left = np.mean(np.square(above @ solution - y))
    np.testing.assert_allclose(done.metrics["train_loss"], left, rtol=1e-5)


def test_the_best_penalty_is_kept_and_the_layers_before_are_as_they_were(tmp_path):
    recipe = runs.small(**ECHO)
    done = runs.quick(recipe, tmp_path / "run")
    np.testing.assert_allclose(runs.column(done, "penalty"), [1e-3, 1e-1, 10.0])
    losses = runs.column(done, "validation_loss")
    assert done.metrics["best_epoch"] == losses.argmin()
    assert len(set(losses)) == 3
    first = before_training(recipe).network.to_model()
    for ours, before in zip(done.model.layers[1:3], first.layers[:2], strict=True):
        for name, array in before.arrays.items():
            np.testing.assert_array_equal(ours.arrays[name], array)
    # The model streams what was fitted.
    x = np.sin(np.arange(50) / 3).astype(np.float32)[:, None]
    np.testing.assert_allclose(done.model.run(x), reference.run(done.model, x), atol=1e-5)


def test_a_resumed_fit_is_the_same(tmp_path, monkeypatch):
    recipe = runs.small(**ECHO)
    whole = runs.quick(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        runs.cut_at(patch, 1)
        with pytest.raises(runs.PowerCutError):
            runs.quick(recipe, tmp_path / "cut")
    runs.same_run(whole, runs.quick(recipe, tmp_path / "cut", resume=True))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"kind": "LSTM", "hidden_size": 1}], "fits a Dense layer at the end"),
        (
            [{"kind": "Dense", "output_size": 1}, {"kind": "LSTM", "hidden_size": 1}],
            "fits a Dense layer at the end",
        ),
        (
            [{"kind": "Dense", "output_size": 1, "activation": "tanh"}],
            "a linear layer with a bias, found the activation tanh and a bias",
        ),
        (
            [{"kind": "Dense", "output_size": 1, "bias": False}],
            "found the activation linear and no",
        ),
    ],
)
def test_other_networks_are_refused(layers, message):
    with pytest.raises(RecipeError, match=message):
        LeastSquares(Network.from_sizes(1, layers))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training.loss": "mae"}, 'needs training.loss "mse"'),
        ({"training.max_epochs": 4}, "at most one for each of optimiser.penalties"),
        ({"training.devices": 2}, "needs one device"),
        ({"windows.length": 0, "windows.warm_up": 0}, "needs windows.length above 0"),
    ],
)
def test_what_is_no_linear_problem_is_refused(overrides, message):
    with pytest.raises(RecipeError, match=message):
        runs.small(**{**ECHO, **overrides})


def test_resonant_units_fade_and_turn_as_they_say():
    """Eigenvalues: integrators are real in (0, 1), pairs turn by 2 pi / period and fade."""
    torch.manual_seed(3)
    layer = RNN(2, 30, batch_first=True)
    resonate(layer, [24.0, 12.0, 8.0], 50.0, 0.02)
    values = np.linalg.eigvals(layer.weight_hh_l0.detach().double().numpy())
    real = values[np.abs(values.imag) < 1e-9].real
    turning = values[values.imag > 1e-9]
    assert len(real) == 10
    assert len(turning) == 10
    periods = np.sort(np.round(2 * np.pi / np.angle(turning), 3))
    np.testing.assert_allclose(periods, np.repeat([8.0, 12.0, 24.0], [3, 3, 4]), rtol=1e-3)
    constants = -1 / np.log(np.abs(np.concatenate([real, turning])))
    assert constants.min() >= 0.7 - 1e-3
    assert constants.max() <= 50 * (1 + 1e-3)
    gain = np.sqrt(1 - np.square(layer.weight_hh_l0.detach().double().numpy()).sum(1))
    inputs = np.abs(layer.weight_ih_l0.detach().double().numpy())
    np.testing.assert_allclose(inputs, 0.02 * np.maximum(gain, 0.01)[:, None] * [1, 1], rtol=1e-3)
    assert not layer.bias_ih_l0.any()
    assert not layer.bias_hh_l0.any()


def test_relu_units_rest_where_they_are_linear():
    """Around where they rest they are the linear filters, and start there.

    To the rounding of their float32 biases, which add up over 40 steps.
    """
    torch.manual_seed(5)
    layer = RNN(1, 13, batch_first=True, nonlinearity="relu")
    resonate(layer, [24.0, 12.0, 8.0, 6.0], 40.0, 0.5)
    layer = layer.double()
    x = 0.3 * torch.randn(1, 200, 1, dtype=torch.float64, generator=torch.manual_seed(1))
    y, _ = layer(x, layer.initial(x, 1))
    weight, into = (layer.weight_hh_l0.detach(), layer.weight_ih_l0.detach())
    state, found = torch.zeros(13, dtype=torch.float64), []
    for value in x[0, :, 0]:
        state = weight @ state + into[:, 0] * value
        found.append(state)
    linear = torch.stack(found)
    assert linear.abs().max() > 0.1
    torch.testing.assert_close(y[0].detach(), 4.0 * 0.5 + linear, rtol=0, atol=40 * 2.4e-7)


def test_resonant_needs_biases_and_enough_units():
    with pytest.raises(ModelError, match="at least 7 units for 2 periods, found biases and 6"):
        resonate(RNN(1, 6), [24.0, 12.0], 50.0, 0.02)
    with pytest.raises(ModelError, match="found no biases and 9 units"):
        resonate(RNN(1, 9, bias=False), [], 50.0, 0.02)
