"""Norms, differences and residual connections in the twin, against the reference or torch."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import cases
from fastlstm import reference
from fastlstm.errors import ModelError
from fastlstm.model import Affine, Difference, LayerNorm, Model, Residual
from fastlstm.train.network import Network

torch.set_num_threads(1)


def series(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def draw(*shape, seed=0):
    return cases.uniform(np.random.default_rng([seed, *shape]), *shape)


def random_network(inputs, layers, **options):
    """All parameters random, those that begin at 0 or 1 too, and the statistics of BatchNorms."""
    torch.manual_seed(0)
    network = Network.from_sizes(inputs, layers, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.5, 0.5)
        for layer in network.layers:
            if isinstance(layer, nn.BatchNorm1d):
                layer.running_mean.uniform_(-2, 2)
                layer.running_var.uniform_(0.1, 3)
    return network


MODELS = {
    "norm": lambda: Model((LayerNorm(draw(5), draw(5), 1e-3), LayerNorm(draw(5, seed=1)))),
    "difference": lambda: Model((Difference(3), Difference(3, draw(3)), cases.dense(3, 2))),
    "usual": lambda: Model((cases.recurrent("GRU", 4, 4), Residual(1, (0, 1, 2, 3)))),
    "one": lambda: Model((Difference(3), cases.recurrent("LSTM", 3, 6), Residual(2, (2,) * 6))),
    "columns": lambda: Model((cases.dense(4, 5), Residual(1, (3, 0, 0, 2, 1)))),
    "some-in-a-row": lambda: Model((cases.dense(4, 2), Residual(1, (2, 3)))),
    "across": lambda: Model(
        (
            Difference(2, draw(2)),
            cases.bidirectional("LSTM", 2, 3, peephole=True),
            LayerNorm(draw(6)),
            cases.bidirectional("GRU", 6, 3, reset="before"),
            Residual(2, tuple(range(6))),
            Residual(5, (1, 0, 1, 0, 0, 0)),
        )
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_the_reference_in_float64(name):
    model = MODELS[name]()
    network = Network.from_model(model).double()
    x = series(3, 30, model.input_size)
    with torch.no_grad():
        y, state = network(x)
    for k, sequence in enumerate(x.numpy()):
        exact = reference.run_with_state(model, sequence)
        np.testing.assert_allclose(y[k], exact.output, rtol=0, atol=1e-12)
        for found, true in zip(state, exact.state, strict=True):
            np.testing.assert_allclose(found[k], true, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_to_a_network_and_back_is_exact_under_the_files_names(name):
    model = MODELS[name]()
    network = Network.from_model(model)
    names = {
        f"layers.{k}.{name}": array.shape
        for k, layer in enumerate(model.layers)
        for name, array in layer.arrays.items()
    }
    assert {name: tuple(t.shape) for name, t in network.state_dict().items()} == names
    for ours, theirs in zip(network.to_model().layers, model.layers, strict=True):
        assert (ours.kind, ours.options) == (theirs.kind, theirs.options)
        assert ours.arrays.keys() == theirs.arrays.keys()
        for array in theirs.arrays:
            np.testing.assert_array_equal(ours.arrays[array], theirs.arrays[array])


def test_batch_norm_folds_into_what_torch_computes_in_eval_mode():
    entries = [{"kind": "BatchNorm"}, {"kind": "LSTM", "hidden_size": 4}, {"kind": "BatchNorm"}]
    network = random_network(3, entries)
    model = network.to_model()
    assert [type(layer) is Affine for layer in model.layers] == [True, False, True]
    x = series(2, 40, 3)
    first, lstm, last = copy.deepcopy(network).double().eval().layers
    with torch.no_grad():
        plain = [nn.BatchNorm1d(size).double().eval() for size in (3, 4)]
        for theirs, ours in zip(plain, (first, last), strict=True):
            theirs.load_state_dict(ours.state_dict())
        z = plain[0](x.reshape(-1, 3)).reshape(x.shape)
        y = torch.lstm(z, lstm.stacked(lstm.initial(z, 2)), lstm.weights(), *lstm.settings())[0]
        expected = plain[1](y.transpose(1, 2)).transpose(1, 2)
        found = network.double().eval()(x)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for k, sequence in enumerate(x.numpy()):
        # Scale and shift are rounded to float32 once: a relative 6e-8 each, of values around 10.
        np.testing.assert_allclose(reference.run(model, sequence), expected[k], rtol=0, atol=5e-6)


def test_batch_norm_in_training_is_torchs_over_all_steps_of_all_sequences():
    network = random_network(3, [{"kind": "BatchNorm"}]).double().train()
    plain = nn.BatchNorm1d(3).double()
    plain.load_state_dict(network.layers[0].state_dict())
    x = 5 + series(4, 10, 3)
    found, expected = network(x)[0], plain(x.reshape(-1, 3)).reshape(x.shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    (found**3).sum().backward()
    (expected**3).sum().backward()
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)
    torch.testing.assert_close(network.layers[0].running_mean, plain.running_mean, rtol=0, atol=0)
    torch.testing.assert_close(network.layers[0].running_var, plain.running_var, rtol=0, atol=0)


def test_residual_chains_within_residual_chains_become_a_flat_model():
    inner = {
        "kind": "Residual",
        "layers": [{"kind": "LayerNorm", "eps": 1e-3}, {"kind": "GRU", "hidden_size": 3}],
    }
    outer = {
        "kind": "Residual",
        "layers": [inner, inner, {"kind": "LSTM", "hidden_size": 4}],
        "columns": [2, 1, 1, 0],
    }
    network = random_network(
        3, [{"kind": "Difference"}, outer, {"kind": "Dense", "output_size": 2}]
    )
    model = network.to_model()
    assert [(layer.kind, layer.options.get("back")) for layer in model.layers] == [
        ("Difference", None),
        ("LayerNorm", None), ("GRU", None), ("Residual", 2),
        ("LayerNorm", None), ("GRU", None), ("Residual", 2),
        ("LSTM", None), ("Residual", 7),
        ("Dense", None),
    ]  # fmt: skip
    _, n1, g1, _, n2, g2, _, lstm, _, dense = (
        copy.deepcopy(layer).double() for layer in network.layers
    )
    x = series(2, 20, 3)
    with torch.no_grad():
        d = x - torch.cat([torch.zeros(2, 1, 3), x[:, :-1]], 1)
        a = d + g1(n1(d), g1.initial(d, 2))[0]
        b = a + g2(n2(a), g2.initial(a, 2))[0]
        c = lstm(b, lstm.initial(b, 2))[0] + torch.stack([d[..., k] for k in (2, 1, 1, 0)], -1)
        expected = dense(c)
        found = network.double()(x)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for k, sequence in enumerate(x.numpy()):
        np.testing.assert_allclose(reference.run(model, sequence), expected[k], rtol=0, atol=1e-12)


def test_the_columns_that_a_residual_chain_adds_if_none_are_named():
    def columns(size, out):
        entry = {"kind": "Residual", "layers": [{"kind": "Dense", "output_size": out}]}
        return Network.from_sizes(size, [entry]).to_model().layers[-1].columns

    assert columns(1, 4) == (0, 0, 0, 0)
    assert columns(3, 3) == (0, 1, 2)
    with pytest.raises(ModelError, match=r"an inner chain that puts out 3 values.*found 4"):
        columns(3, 4)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"layers": []}, r"Residual\.layers: expected at least one layer, found none"),
        ({"columns": [0]}, "an inner chain that puts out 1 values.*found 2"),
        ({"columns": [0, 3]}, "columns from 0 to 2 of the 3 values that go in, found 3"),
        ({"columns": [0, -1]}, "columns from 0 to 2 of the 3 values that go in, found -1"),
    ],
)
def test_residual_chains_that_no_model_has_are_refused_before_training(entry, message):
    chain = {"kind": "Residual", "layers": [{"kind": "Dense", "output_size": 2}], **entry}
    with pytest.raises(ModelError, match=message):
        Network.from_sizes(3, [chain])


@pytest.mark.parametrize("bias", [1.0, -2.5, 0.0])
def test_the_forget_gates_biases_add_up_to_what_is_asked(bias):
    entries = [
        {"kind": "LSTM", "hidden_size": 3, "bidirectional": True},
        {"kind": "LSTM", "hidden_size": 4, "peephole": True},
        {"kind": "LSTM", "hidden_size": 2, "bias": False},
        {"kind": "GRU", "hidden_size": 5},
    ]
    torch.manual_seed(0)
    drawn = Network.from_sizes(2, entries).state_dict()
    torch.manual_seed(0)
    found = Network.from_sizes(2, entries, forget_gate_bias=bias).state_dict()
    changed = 0
    for name, before in drawn.items():
        layer, parameter = int(name.split(".")[1]), name.split(".")[2]
        expected = before.clone()
        if layer < 2 and "bias" in parameter:
            hidden = len(before) // 4
            expected[hidden : 2 * hidden] = bias if "bias_ih" in parameter else 0.0
            changed += 1
        assert torch.equal(found[name], expected), name
    assert changed == 6
    assert bias or torch.equal(found["layers.0.bias_ih_l0"][3:6], torch.zeros(3))


def test_a_learned_beginning_of_a_difference_reaches_the_first_output_alone():
    layers = [{"kind": "Difference"}, {"kind": "Dense", "output_size": 2}]
    network = random_network(3, layers, learned_initial_state=True)
    model, x = network.to_model(), series(2, 6, 3)
    x0 = model.layers[0].x0
    assert np.abs(x0).min() > 0
    network.double()
    found = network(x)[0]
    changes = np.diff(x.numpy(), axis=1, prepend=np.broadcast_to(x0.astype(float), (2, 1, 3)))
    weight, bias = (a.astype(float) for a in model.layers[1].arrays.values())
    np.testing.assert_allclose(found.detach(), changes @ weight.T + bias, rtol=0, atol=1e-14)
    (found[0, 0, 0] + 10 * found[1, 0, 1] + found[1, 3, 1]).backward()
    wanted = -(weight[0] + 10 * weight[1])
    np.testing.assert_allclose(network.layers[0].x0.grad, wanted, rtol=0, atol=1e-14)


def test_a_carried_state_continues_the_stream_and_is_no_view_of_it():
    network = random_network(
        2,
        [
            {"kind": "Difference"},
            {"kind": "Residual", "layers": [{"kind": "GRU", "hidden_size": 2}]},
            {"kind": "Difference"},
        ],
    ).double()
    x = series(3, 20, 2)
    with torch.no_grad():
        whole, end = network(x)
        state, outputs = None, []
        buffer = torch.empty(3, 5, 2, dtype=torch.float64)
        for piece in x.split(5, 1):
            buffer.copy_(piece)
            y, state = network(buffer, state)
            outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=0, atol=1e-15)
    for found, true in zip(state, end, strict=True):
        torch.testing.assert_close(found, true, rtol=0, atol=1e-15)
