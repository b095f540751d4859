"""Network against the float64 reference and against torch's own stacks, and to a Model and back."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from fastlstm import reference
from fastlstm.errors import ModelError
from fastlstm.model import GRU, LSTM, RNN, Affine, Dense, Model
from fastlstm.train.network import Network

torch.set_num_threads(1)

KINDS = ("LSTM", "GRU", "RNN")


def random_network(layers, inputs=2, seed=0, **options):
    """A network whose weights, biases and initial states are all random, yet far from chaos."""
    torch.manual_seed(seed)
    network = Network.from_sizes(inputs, layers, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.5, 0.5).div_(max(1, parameter.shape[-1]) ** 0.5)
    return network


def series(steps, inputs=2, seed=0):
    return np.random.default_rng(seed).standard_normal((steps, inputs)).astype(np.float32)


def run_double(network, x):
    with torch.no_grad():
        y, state = network.double()(torch.from_numpy(x.astype(np.float64))[None])
    return y[0].numpy(), [vector[0].numpy() for vector in state]


@pytest.mark.parametrize("hidden", [1, 3, 16, 17, 64, 130])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_reference_in_float64(kind, count, hidden):
    layers = [{"kind": kind, "hidden_size": hidden}] * count
    network = random_network([*layers, {"kind": "Dense", "output_size": 2}])
    model, x = network.to_model(), series(100)
    y, state = run_double(Network.from_model(model), x)
    exact = reference.run_with_state(model, x)
    np.testing.assert_allclose(y, exact.output, rtol=0, atol=1e-12)
    assert len(state) == len(exact.state)
    for found, true in zip(state, exact.state, strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "stack"), [("LSTM", nn.LSTM), ("GRU", nn.GRU), ("RNN", nn.RNN)])
def test_agrees_with_a_stack_of_torch(kind, stack):
    network = random_network([{"kind": kind, "hidden_size": 5}] * 2)
    twin = stack(2, 5, num_layers=2, batch_first=True)
    renamed = {
        f"{name.removesuffix('0')}{name.split('.')[1]}".split(".")[-1]: value
        for name, value in network.state_dict().items()
    }
    twin.load_state_dict(renamed)
    x = torch.randn(3, 40, 2)
    with torch.no_grad():
        assert torch.equal(network(x)[0], twin(x)[0])


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "sigmoid", "softmax"])
def test_every_activation_and_relu_rnn(activation):
    network = random_network(
        [
            {"kind": "Affine", "scale": [2.0, -1.0], "shift": [0.5, 3.0]},
            {"kind": "RNN", "hidden_size": 4, "nonlinearity": "relu", "bias": False},
            {"kind": "Dense", "output_size": 3, "activation": activation, "bias": False},
        ]
    )
    model, x = network.to_model(), series(50)
    assert model.layers[2].activation == activation
    assert model.layers[1].nonlinearity == "relu"
    assert model.layers[1].bias_ih_l0 is None
    np.testing.assert_allclose(
        run_double(network, x)[0], reference.run(model, x), rtol=0, atol=1e-12
    )


def test_learned_initial_state_reaches_the_first_output():
    layers = [{"kind": "LSTM", "hidden_size": 4}, {"kind": "GRU", "hidden_size": 3}]
    network = random_network(layers, learned_initial_state=True)
    model, x = network.to_model(), series(5)
    assert np.abs(model.layers[0].c0).min() > 0
    np.testing.assert_allclose(
        run_double(Network.from_model(model), x)[0], reference.run(model, x), rtol=0, atol=1e-12
    )


def test_a_carried_state_continues_the_stream():
    network = random_network(
        [{"kind": "LSTM", "hidden_size": 4}, {"kind": "GRU", "hidden_size": 3}]
    )
    network.double().eval()
    x = torch.randn(2, 30, 2, dtype=torch.float64)
    with torch.no_grad():
        whole, end = network(x)
        first, state = network(x[:, :11])
        second, last = network(x[:, 11:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-15)
    assert [tuple(v.shape) for v in end] == [(2, 4), (2, 4), (2, 3)]
    for found, true in zip(last, end, strict=True):
        torch.testing.assert_close(found, true, rtol=0, atol=1e-15)


def every_layer():
    r = np.random.default_rng(1)

    def draw(*shape):
        return r.standard_normal(shape).astype(np.float32)

    return Model(
        (
            Affine(draw(2), draw(2)),
            LSTM(draw(12, 2), draw(12, 3), draw(12), draw(12), draw(3), draw(3)),
            GRU(draw(12, 3), draw(12, 4)),
            RNN(draw(5, 4), draw(5, 5), draw(5), draw(5), draw(5), nonlinearity="relu"),
            Dense(draw(2, 5), None, "softmax"),
        ),
        {"name": "every layer"},
    )


def test_to_a_network_and_back_is_exact():
    model = every_layer()
    back = Network.from_model(model).to_model(model.metadata)
    assert back.metadata == model.metadata
    for ours, theirs in zip(back.layers, model.layers, strict=True):
        assert (ours.kind, ours.options) == (theirs.kind, theirs.options)
        assert ours.arrays.keys() == theirs.arrays.keys()
        for name, array in theirs.arrays.items():
            assert np.array_equal(ours.arrays[name], array)


def test_parameter_names_and_shapes_are_those_of_the_model_file():
    model = every_layer()
    expected = {
        f"layers.{k}.{name}": array.shape
        for k, layer in enumerate(model.layers)
        for name, array in layer.arrays.items()
    }
    found = Network.from_model(model).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == expected


def test_building_from_a_model_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    Network.from_model(every_layer())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace.*` is deprecated:DeprecationWarning")
def test_traced_network_takes_any_batch_and_length():
    network = Network.from_model(every_layer()).requires_grad_(False)
    one = torch.zeros(1, 1, 2)
    traced = torch.jit.trace(network, (one, network.initial_state(one)))
    x = torch.randn(3, 20, 2)
    y, state = traced(x, network.initial_state(x))
    expected, end = network(x)
    assert torch.equal(y, expected)
    assert all(map(torch.equal, state, end))


def test_dropout_acts_between_layers_in_training_only():
    layers = [{"kind": "LSTM", "hidden_size": 8}, {"kind": "Dense", "output_size": 1}]
    network = random_network(layers, dropout=0.5)
    x = torch.randn(1, 10, 2)
    with torch.no_grad():
        assert not torch.equal(network(x)[0], network(x)[0])
        network.eval()
        assert torch.equal(network(x)[0], network(x)[0])
        np.testing.assert_allclose(
            network(x)[0][0].numpy(), reference.run(network.to_model(), x[0].numpy()), atol=1e-6
        )


def test_unknown_layers_are_refused_by_name():
    with pytest.raises(ModelError, match=r"kind among LSTM, GRU, .*, BatchNorm, found 'Conv'"):
        Network.from_sizes(1, [{"kind": "Conv"}])
    with pytest.raises(ModelError, match=r"layer of cells\.py or .* found Linear"):
        Network([nn.Linear(1, 1)]).to_model()


def test_network_costs_torch_and_nothing_else():
    program = (
        "import sys; from fastlstm.train.network import Network; "
        "assert not {'lightning', 'pydantic', 'polars', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("library", "code"),
    [
        ("torch", "import fastlstm.train"),
        ("lightning", "import fastlstm.train as t; t.fit"),
        ("pydantic", "import fastlstm.train as t; t.load_recipe"),
        ("polars", "import fastlstm.train as t; t.evaluate"),
    ],
)
def test_a_missing_library_names_the_extra(library, code):
    program = f"import sys; sys.modules[{library!r}] = None; {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingExtraError" in last
    assert f"needs {library}, which is not installed" in last
    assert "pip install 'fastlstm[train]'" in last
