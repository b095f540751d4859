"""The recurrences with a backward pass of their own, against autograd of the plain loops."""

import numpy as np
import pytest
import torch

import cases
from fastlstm import reference
from fastlstm.model import Model
from fastlstm.train.cells import LoopedGRU, LoopedLSTM
from fastlstm.train.network import Network
from fastlstm.train.plain_recurrences import gru_loop, lstm_loop
from fastlstm.train.recurrences import GRULoop, LSTMLoop

torch.set_num_threads(1)

INPUTS = 3
# Hidden size, the projection's (0 for none), peepholes, bias; a GRU has only the first and last.
LSTMS = {
    "plain": (4, 0, False, True),
    "peephole": (5, 0, True, True),
    "projection": (5, 3, False, False),
    "wide-projection": (3, 5, False, True),
    "everything": (4, 6, True, True),
    "one-unit": (1, 1, True, False),
}
GRUS = {"gru": (5, True), "gru-no-bias": (4, False), "gru-of-one": (1, True)}
SIZES = {"one-length": (3,) * 6, "several": (4, 4, 3, 1, 1), "one-step": (2,), "one": (1, 1, 1)}


def draw(*shape, seed=0):
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return torch.from_numpy(values).requires_grad_()


def arguments(name, sizes):
    """What LSTMLoop or GRULoop takes, without sizes; None where the layer lacks something."""
    x = draw(sum(sizes), INPUTS)
    if name in GRUS:
        hidden, bias = GRUS[name]
        weights = draw(3 * hidden, INPUTS), draw(3 * hidden) if bias else None
        return x, draw(sizes[0], hidden), *weights, draw(3 * hidden, hidden)
    hidden, projection, peephole, bias = LSTMS[name]
    size = projection or hidden
    return (
        x,
        draw(sizes[0], size),
        draw(sizes[0], hidden, seed=1),
        draw(4 * hidden, INPUTS),
        draw(4 * hidden) if bias else None,
        draw(4 * hidden, size),
        draw(projection, hidden) if projection else None,
        draw(3 * hidden) if peephole else None,
    )


def alone(name, sizes, x, *given):
    """Every sequence by itself in the plain loop; packed again, and the states after the last."""
    rows = list(x.split(sizes))
    count = 1 if name in GRUS else 2
    (w_ih, bias, *weights), ends, outputs = given[count:], [], []
    for k in range(sizes[0]):
        sequence = torch.stack([row[k] for row in rows if k < len(row)])
        z = torch.nn.functional.linear(sequence, w_ih, bias)[None]
        state = [vector[k : k + 1] for vector in given[:count]]
        loop = gru_loop if name in GRUS else lstm_loop
        y, *end = loop(z, *state, *weights)
        outputs.append(y[0])
        ends.append(end)
    packed = torch.cat(
        [torch.stack([outputs[k][t] for k in range(n)]) for t, n in enumerate(sizes)]
    )
    return packed, *(torch.cat(vectors) for vectors in zip(*ends, strict=True))


def ours(name, sizes, *given):
    function = GRULoop if name in GRUS else LSTMLoop
    return function.apply(*given, sizes)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", [*LSTMS, *GRUS])
def test_values_and_gradients_are_those_of_the_plain_loop(name, sizes):
    given = arguments(name, sizes)
    found, expected = ours(name, sizes, *given), alone(name, sizes, *given)
    wanted = [value for value in given if value is not None]
    # Every output and state weighs differently, so that no two can be swapped.
    weights = [draw(*value.shape, seed=k).detach() for k, value in enumerate(expected)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    gradients = [
        torch.autograd.grad(
            sum((w * v).sum() for w, v in zip(weights, values, strict=True)), wanted
        )
        for values in (found, expected)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", [*LSTMS, *GRUS])
def test_gradients_are_those_of_finite_differences(name):
    sizes = SIZES["several"]
    torch.autograd.gradcheck(lambda *given: ours(name, sizes, *given), arguments(name, sizes))


@pytest.mark.parametrize("name", ["everything", "gru"])
def test_only_what_is_used_and_asked_for_has_a_gradient(name):
    sizes = SIZES["several"]
    given = [None if v is None else v.detach() for v in arguments(name, sizes)]
    found, expected = [], []
    for function, gradients in ((ours, found), (alone, expected)):
        for k in (-1 if name == "gru" else -3, 1):
            given[k].requires_grad_()
            # Of the states after the last step nothing is used here.
            y, *_ = function(name, sizes, *given)
            gradients += torch.autograd.grad((y**2).sum(), [given[k]])
            given[k].requires_grad_(False)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["everything", "gru"])
def test_backward_can_run_twice_but_not_through_itself(name):
    sizes = SIZES["several"]
    given = arguments(name, sizes)
    loss = (ours(name, sizes, *given)[0] ** 2).sum()
    first = torch.autograd.grad(loss, given[0], retain_graph=True)[0]
    (second,) = torch.autograd.grad(loss, given[0], create_graph=True)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


LAYERS = {
    "peephole": lambda: LoopedLSTM(2, 9, peephole=True),
    "wide-projection": lambda: LoopedLSTM(2, 4, proj_size=7, bidirectional=True),
    "reset-before": lambda: LoopedGRU(2, 9, bidirectional=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_agree_with_their_own_plain_loop_and_the_reference(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    network = Network([layer]).double()
    x = draw(3, 40, 2)
    start = layer.initial(x, 3)
    found, _ = layer(x, start)
    plain, _ = type(layer).forward(with_plain_loops(layer), x, start)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-13)
    weights = draw(*found.shape, seed=5).detach()
    given = [x, *layer.parameters()]
    gradients = [torch.autograd.grad((weights * y).sum(), given) for y in (found, plain)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    for k in range(3):
        expected = reference.run(network.to_model(), x[k].detach().numpy())
        # The Model holds the weights, which were drawn in float32, exactly.
        np.testing.assert_allclose(found[k].detach(), expected, rtol=0, atol=1e-12)


def with_plain_loops(layer):
    """The layer itself, whose loops are those that a trace takes from now on."""
    layer.one_way = layer.plain
    return layer


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_run_of_no_steps_hands_the_state_on(kind):
    options = {"peephole": True, "projection": 4} if kind == "LSTM" else {"reset": "before"}
    model = Model((cases.recurrent(kind, 2, 3, initial=True, **options),))
    network = Network.from_model(model)
    start = tuple(vector + 1 for vector in network.initial_state(torch.zeros(2, 0, 2)))
    y, state = network(torch.zeros(2, 0, 2), start)
    assert y.shape == (2, 0, model.output_size)
    for found, given in zip(state, start, strict=True):
        assert torch.equal(found, given)
    (sum(vector.sum() for vector in state)).backward()
    assert torch.equal(network.layers[0].h0.grad, torch.full((model.output_size,), 2.0))


@pytest.mark.parametrize("name", LAYERS)
def test_in_mixed_precision_the_loop_stays_in_that_of_its_weights(name):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    x = draw(3, 12, 2).detach().to(torch.bfloat16)
    start = layer.initial(x, 3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = layer(x, start)
        ours = torch.autograd.grad((mixed**2).sum(), [*layer.parameters()])
    whole, _ = layer(x.float(), tuple(vector.float() for vector in start))
    theirs = torch.autograd.grad((whole**2).sum(), [*layer.parameters()])
    assert torch.equal(mixed, whole)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_a_compiler_follows_the_plain_loop():
    torch.manual_seed(0)
    layer = LAYERS["peephole"]().double()
    x = draw(2, 5, 2).detach()
    start = layer.initial(x, 2)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, start)[0], layer(x, start)[0], rtol=0, atol=1e-13)
