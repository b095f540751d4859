"""The oracle against torch float64, and against closed forms where there are some."""

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.model import LSTM, RNN, Affine, Dense, Model

torch = pytest.importorskip("torch", reason="torch is not installed")


def torch_run(model, x):
    """The model's recurrent layers and Dense layers in torch float64, from torch's own modules."""
    value = torch.tensor(x, dtype=torch.float64)[:, None]
    states = []
    for layer in model.layers:
        if isinstance(layer, Dense):
            value = torch.nn.functional.linear(
                value, *(torch.tensor(a, dtype=torch.float64) for a in layer.arrays.values())
            )
            continue
        extra = {"nonlinearity": layer.nonlinearity} if isinstance(layer, RNN) else {}
        module = getattr(torch.nn, layer.kind)(
            layer.input_size, layer.hidden_size, bias=layer.bias_ih_l0 is not None, **extra
        ).double()
        own = {k: v for k, v in layer.arrays.items() if k not in ("h0", "c0")}
        module.load_state_dict({k: torch.tensor(v, dtype=torch.float64) for k, v in own.items()})
        start = [
            torch.tensor(s.initial, dtype=torch.float64)[None, None]
            for s in model.states
            if model.layers[s.layer] is layer
        ]
        value, end = module(value, tuple(start) if len(start) == 2 else start[0])
        states += [s[0, 0] for s in (end if isinstance(end, tuple) else (end,))]
    return value[:, 0].detach().numpy(), [s.detach().numpy() for s in states]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("hidden", [1, 3, 16, 17, 64, 130])
def test_equals_torch_float64(kind, layers, hidden):
    model = cases.stack(kind, hidden, layers)
    x = reference.check_input(model, 200)
    output, state = reference.run_with_state(model, x)
    expected, expected_state = torch_run(model, x)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-12)
    for found, true in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["rnn-relu", "no-bias", "gru-no-bias", "learned-start", "saturating"]
)
def test_equals_torch_float64_in_awkward_cases(name):
    model = cases.model(name)
    x = cases.stream(model, 200)
    output, state = reference.run_with_state(model, x)
    expected, expected_state = torch_run(model, x)
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-12 * scale)
    for found, true in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-12 * max(1, np.abs(true).max()))


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "sigmoid", "softmax"])
def test_activations_equal_torch(activation):
    layer = cases.dense(6, 9, activation)
    x = cases.stream(Model((layer,)), 40)
    z = torch.nn.functional.linear(
        torch.tensor(x, dtype=torch.float64),
        torch.tensor(layer.weight, dtype=torch.float64),
        torch.tensor(layer.bias, dtype=torch.float64),
    )
    if activation == "softmax":
        z = torch.softmax(z, -1)
    elif activation != "linear":
        z = getattr(torch, activation)(z)
    np.testing.assert_allclose(reference.run(Model((layer,)), x), z.numpy(), rtol=0, atol=1e-12)


def test_zero_weights_have_a_closed_form():
    # Every gate is sigmoid(0) = 1/2 and g is tanh(bias): c is a geometric sum, h half its tanh.
    rows = np.zeros((4, 1), np.float32)
    bias = np.array([0, 0, 0.5, 0], np.float32)
    layer = LSTM(rows, rows.copy(), bias, np.zeros(4, np.float32))
    steps = np.arange(1, 11)
    c = np.tanh(0.5) * (1 - 0.5**steps)
    found = reference.run(Model((layer,)), np.zeros((10, 1)))
    np.testing.assert_allclose(found[:, 0], 0.5 * np.tanh(c), rtol=1e-15)


def test_affine_is_elementwise():
    model = Model((Affine(np.array([2, -1], np.float32), np.array([0.5, 3], np.float32)),))
    assert reference.run(model, [[1, 1], [0, 2]]).tolist() == [[2.5, 2], [0.5, 1]]


def test_check_input_sees_what_the_network_was_made_for():
    x = reference.check_input(cases.model("scaled"), 5000)
    assert abs(x.mean() - 350) < 1
    assert abs(x.std() - 15) < 1


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"\(time, 2\), found \(4, 3\)"):
        reference.run(cases.stack("LSTM", 3, 1), np.zeros((4, 3)))
