"""Projections, peepholes, both GRU resets and both directions in the twin: values and gradients."""

import tomllib

import numpy as np
import pytest
import torch
from torch import nn

import cases
from fastlstm import reference
from fastlstm.errors import ModelError, RecipeError
from fastlstm.model import LSTM, Bidirectional, Model
from fastlstm.train import fit
from fastlstm.train.cells import GRU, LoopedGRU, LoopedLSTM
from fastlstm.train.network import Network
from fastlstm.train.recipe import load_recipe, parse_recipe, to_toml

torch.set_num_threads(1)

STACKS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
# By a name: kind, hidden size and the options of cases.recurrent, each with a learned start.
LAYERS = {
    "projection": ("LSTM", 7, {"projection": 3}),
    "projection-of-one": ("LSTM", 9, {"projection": 1, "bias": False}),
    # torch tells a projection by h and c being of different sizes.
    "projection-as-large": ("LSTM", 5, {"projection": 5}),
    "projection-larger": ("LSTM", 5, {"projection": 8}),
    "peephole": ("LSTM", 17, {"peephole": True}),
    "peephole-and-projection": ("LSTM", 8, {"peephole": True, "projection": 5}),
    "peephole-no-bias": ("LSTM", 6, {"peephole": True, "bias": False}),
    "reset-before": ("GRU", 11, {"reset": "before"}),
    "reset-before-no-bias": ("GRU", 5, {"reset": "before", "bias": False}),
    "rnn-relu": ("RNN", 5, {"nonlinearity": "relu"}),
    "gru": ("GRU", 6, {}),
    "lstm": ("LSTM", 6, {}),
}


def chain(name, both):
    """Two such layers with a Dense between them and after them."""
    kind, hidden, options = LAYERS[name]
    make = cases.bidirectional if both else cases.recurrent
    first = make(kind, 2, hidden, seed=1, initial=True, **options)
    middle = cases.dense(first.output_size, 4, "tanh")
    second = make(kind, 4, hidden, seed=2, initial=True, **options)
    return Model((first, middle, second, cases.dense(second.output_size, 2)))


def series(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("name", LAYERS)
def test_agrees_with_the_reference_in_float64(name, both):
    model = chain(name, both)
    network = Network.from_model(model).double()
    x = series(3, 40, 2)
    with torch.no_grad():
        y, state = network(x)
    for k, sequence in enumerate(x.numpy()):
        exact = reference.run_with_state(model, sequence)
        np.testing.assert_allclose(y[k], exact.output, rtol=0, atol=1e-12)
        for found, true in zip(state, exact.state, strict=True):
            np.testing.assert_allclose(found[k], true, rtol=0, atol=1e-12)


@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("name", LAYERS)
def test_to_a_network_and_back_is_exact_under_the_files_names(name, both):
    model = chain(name, both)
    network = Network.from_model(model)
    names = {
        f"layers.{k}.{name}": array.shape
        for k, layer in enumerate(model.layers)
        for name, array in layer.arrays.items()
    }
    found = network.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == names
    for ours, theirs in zip(network.to_model().layers, model.layers, strict=True):
        assert (ours.kind, ours.options) == (theirs.kind, theirs.options)
        assert ours.arrays.keys() == theirs.arrays.keys()
        for array in theirs.arrays:
            np.testing.assert_array_equal(ours.arrays[array], theirs.arrays[array])


@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize(("kind", "projection"), [("LSTM", 0), ("LSTM", 3), ("GRU", 0), ("RNN", 0)])
def test_agrees_with_a_stack_of_torch_and_its_states(kind, both, projection):
    options = {"proj_size": projection} if projection else {}
    torch.manual_seed(0)
    stack = STACKS[kind](2, 5, 2, batch_first=True, bidirectional=both, **options).double()
    entry = {"kind": kind, "hidden_size": 5, "bidirectional": both, **options}
    network = Network.from_sizes(2, [entry] * 2).double()
    weights = stack.state_dict()
    network.load_state_dict(
        {
            f"layers.{k}.{name}": weights[name.replace("_l0", f"_l{k}")]
            for k in range(2)
            for name in weights
            if "_l0" in name
        }
    )
    x, ways = series(3, 40, 2), 1 + both
    h, c = series(2 * ways, 3, projection or 5, seed=1), series(2 * ways, 3, 5, seed=2)
    with torch.no_grad():
        if kind == "LSTM":
            expected, after = stack(x, (h, c))
            flat = [v[k] for k in range(2 * ways) for v in (h, c)]
            wanted = [v[k] for k in range(2 * ways) for v in after]
        else:
            expected, last = stack(x, h)
            flat, wanted = list(h), list(last)
        y, state = network(x, tuple(flat))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    for found, true in zip(state, wanted, strict=True):
        torch.testing.assert_close(found, true, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["peephole-and-projection", "reset-before"])
def test_a_state_for_the_backward_half_starts_it_at_the_end(name):
    network = Network.from_model(chain(name, both=True)).double()
    layer = network.layers[0]
    x = series(2, 12, 2)
    state = tuple(series(*v.shape, seed=k) for k, v in enumerate(layer.initial(x, len(x))))
    half = len(state) // 2
    with torch.no_grad():
        y, after = layer(x, state)
        turned, _ = layer.one_way(x.flip(1), state[half:], "_reverse")
        # Cut in time, the backward half's last steps come first.
        late, middle = layer(x[:, 7:], state)
        early, end = layer(x[:, :7], (*state[:half], *middle[half:]))
    width = layer.output_size // 2
    torch.testing.assert_close(y[..., width:], turned.flip(1), rtol=0, atol=0)
    torch.testing.assert_close(late[..., width:], y[:, 7:, width:], rtol=0, atol=1e-14)
    torch.testing.assert_close(early, y[:, :7], rtol=0, atol=1e-14)
    for found, true in zip(end[half:], after[half:], strict=True):
        torch.testing.assert_close(found, true, rtol=0, atol=1e-14)


GRADIENTS = {
    "peephole": lambda: LoopedLSTM(2, 3, peephole=True),
    "peephole-and-projection": lambda: LoopedLSTM(2, 3, peephole=True, proj_size=2),
    "projection-as-large": lambda: LoopedLSTM(2, 2, proj_size=2, bias=False),
    "reset-before": lambda: LoopedGRU(2, 3),
    "bidirectional": lambda: LoopedGRU(2, 2, bidirectional=True),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_finite_differences(name):
    torch.manual_seed(0)
    layer = GRADIENTS[name]()
    layer.learn_initial_state()
    layer.double()
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *parameters):
        given = dict(zip(names, parameters, strict=True))
        start = tuple(given[n].expand(len(x), size) for n, size in layer.state_sizes())
        y, state = torch.func.functional_call(layer, given, (x, start))
        return (y, *state)

    x = series(2, 4, 2).requires_grad_()
    torch.autograd.gradcheck(run, (x, *layer.parameters()))


def test_the_loop_agrees_with_the_library_on_gradients_too():
    torch.manual_seed(0)
    entry = {"kind": "LSTM", "hidden_size": 6, "proj_size": 3}
    library = Network.from_sizes(2, [entry]).double()
    looped = LoopedLSTM(2, 6, proj_size=3).double()
    looped.load_state_dict(library.layers[0].state_dict())
    x = series(3, 20, 2)
    start = library.initial_state(x)
    (library(x, start)[0] ** 2).sum().backward()
    (looped(x, start)[0] ** 2).sum().backward()
    for ours, theirs in zip(looped.parameters(), library.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "LSTM", "hidden_size": 40, "peephole": True, "proj_size": 20},
        {"kind": "GRU", "hidden_size": 40, "reset": "before", "bidirectional": True},
    ],
)
def test_random_weights_are_drawn_as_torch_draws_them(entry):
    torch.manual_seed(0)
    network = Network.from_sizes(30, [entry])
    values = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
    limit = 40**-0.5
    assert values.abs().max() <= limit
    # A uniform distribution's moments, within five standard errors of so many draws.
    error = limit / len(values) ** 0.5
    assert abs(values.mean()) < 5 * error
    assert abs(values.std() - limit / 3**0.5) < 5 * error


def test_entries_become_the_layers_that_they_describe():
    entries = [
        {"kind": "LSTM", "hidden_size": 6, "proj_size": 2, "peephole": True, "bidirectional": True},
        {"kind": "GRU", "hidden_size": 5, "reset": "before", "bias": False},
        {"kind": "GRU", "hidden_size": 4, "reset": "after"},
        {"kind": "RNN", "hidden_size": 3, "nonlinearity": "relu", "bidirectional": True},
    ]
    network = Network.from_sizes(2, entries, learned_initial_state=True)
    assert isinstance(network.layers[2], GRU)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.5, 0.5)
    model = network.to_model()
    assert [layer.output_size for layer in model.layers] == [4, 5, 4, 6]
    assert [layer.options for layer in model.layers] == [
        {"cell": "LSTM"},
        {"reset": "before"},
        {"reset": "after"},
        {"cell": "RNN", "nonlinearity": "relu"},
    ]
    assert model.layers[0].backward.peephole_l0.shape == (18,)
    assert model.layers[1].bias_ih_l0 is None
    x = series(20, 2)
    with torch.no_grad():
        y = network.double()(x[None])[0][0]
    np.testing.assert_allclose(y, reference.run(model, x.numpy()), rtol=0, atol=1e-12)
    with pytest.raises(ModelError, match=r"GRU\.reset: expected one of after, before, found 'B'"):
        Network.from_sizes(2, [{"kind": "GRU", "hidden_size": 2, "reset": "B"}])


def test_halves_of_which_one_lacks_an_array_compute_the_same():
    arrays = dict(cases.recurrent("LSTM", 2, 4, peephole=True, projection=4).arrays)
    plain = {k: v for k, v in arrays.items() if k in ("weight_ih_l0", "weight_hh_l0")}
    model = Model((Bidirectional(LSTM(**arrays), LSTM(**plain)),))
    x = series(15, 2)
    with torch.no_grad():
        y = Network.from_model(model).double()(x[None])[0][0]
    np.testing.assert_allclose(y, reference.run(model, x.numpy()), rtol=0, atol=1e-12)


def test_recipes_know_the_new_options():
    entries = [
        {"kind": "LSTM", "hidden_size": 3, "proj_size": 2, "peephole": True},
        {"kind": "GRU", "hidden_size": 2, "reset": "before", "bidirectional": False},
    ]
    recipe = load_recipe("sine", overrides={"network.layers": entries})
    layers = [layer.model_dump() for layer in recipe.network.layers]
    assert layers == [
        {**entries[0], "bias": True},
        {"kind": "GRU", "hidden_size": 2, "bias": True, "reset": "before"},
    ]
    model = Network.from_sizes(1, layers).to_model()
    assert [layer.output_size for layer in model.layers] == [2, 2]
    assert model.layers[0].arrays["peephole_l0"].shape == (9,)
    assert parse_recipe(tomllib.loads(to_toml(recipe))) == recipe


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"kind": "LSTM", "bidirectional": True},
            r"layers\[0\]\.bidirectional: expected false, found true: .* trains a forecaster",
        ),
        ({"kind": "GRU", "peephole": True}, r"unknown key network\.layers\[0\]\.peephole"),
        ({"kind": "RNN", "proj_size": 1}, r"unknown key network\.layers\[0\]\.proj_size"),
        ({"kind": "LSTM", "proj_size": -1}, r"proj_size: expected greater than or equal to 0"),
        ({"kind": "GRU", "reset": "befor"}, r"reset: expected one of after, before.*mean before"),
    ],
)
def test_what_a_recipe_cannot_train_is_refused(entry, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("sine", overrides={"network.layers": [{"hidden_size": 3, **entry}]})


def test_a_recipe_with_the_new_layers_trains(tmp_path):
    entries = [
        {"kind": "LSTM", "hidden_size": 6, "proj_size": 3, "peephole": True},
        {"kind": "GRU", "hidden_size": 5, "reset": "before"},
        {"kind": "Dense", "output_size": 1},
    ]
    overrides = {
        "network.layers": entries,
        "training.max_epochs": 2,
        "windows.length": 20,
        "windows.warm_up": 5,
        "series.generator": {"kind": "sine", "samples": 300},
    }
    done = fit(load_recipe("sine", overrides=overrides), tmp_path / "run", progress=False)
    kinds = [layer.kind for layer in done.model.layers]
    assert [kind for kind in kinds if kind != "Affine"] == ["LSTM", "GRU", "Dense"]
    x = reference.check_input(done.model, 30)
    with torch.no_grad():
        y = Network.from_model(done.model).double()(torch.from_numpy(x).double()[None])[0][0]
    np.testing.assert_allclose(y, reference.run(done.model, x), rtol=0, atol=1e-12)
