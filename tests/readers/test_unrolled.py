"""Cells written out in formulas are read as the layers that they are, in float64 to 1e-12."""

import copy

import numpy as np
import pytest

from fastlstm import reference
from fastlstm.model import GRU, LSTM, RNN, Bidirectional, Dense, Model, Residual
from fastlstm.readers.chain import layers
from fastlstm.readers.unrolled import rolled

torch = pytest.importorskip("torch", reason="torch is not installed")

import cells_by_hand as by_hand  # noqa: E402  after the skip
from exported import traced  # noqa: E402

nn = torch.nn


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


def read(module, *, keep=False):
    """The Model of a module, and the times of its outputs."""
    out = traced(module, by_hand.INPUTS, time=by_hand.STEPS, keep=keep)[0]
    vectors = out.trace.vectors(rolled(out, "the output"), "the output")
    return Model(layers(vectors.place)), vectors.time[0]


def assert_reads(module, kinds, *, keep=False):
    model, times = read(module, keep=keep)
    assert [type(layer) for layer in model.layers] == kinds
    x = np.random.default_rng(5).standard_normal((by_hand.STEPS, by_hand.INPUTS))
    with torch.no_grad():
        double = copy.deepcopy(module).double()
        expected = double(torch.from_numpy(x)[None])[0].numpy()
    found = reference.run(model, x)[times]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    return model


def equal(found, *expected):
    """To the bit, the blocks of the gates one after the other."""
    blocks = [e.detach().numpy() if isinstance(e, torch.Tensor) else e for e in expected]
    assert found.dtype == np.float32
    assert found.tobytes() == np.ascontiguousarray(np.concatenate(blocks)).tobytes()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_an_lstm_of_two_linears(last, keep):
    module = by_hand.TwoLinears(last=last)
    (layer,) = assert_reads(module, [LSTM], keep=keep).layers
    equal(layer.weight_ih_l0, module.w.weight)
    equal(layer.weight_hh_l0, module.u.weight)
    equal(layer.bias_ih_l0, module.w.bias)
    equal(layer.bias_hh_l0, module.u.bias)
    assert layer.h0 is None
    assert layer.c0 is None


def test_no_bias_at_all():
    (layer,) = assert_reads(by_hand.TwoLinears(bias=False), [LSTM]).layers
    assert layer.bias_ih_l0 is None
    assert layer.bias_hh_l0 is None


@pytest.mark.parametrize("keep", [False, True])
def test_eight_linears(keep):
    module = by_hand.EightLinears()
    (layer,) = assert_reads(module, [LSTM], keep=keep).layers
    equal(layer.weight_ih_l0, *(w.weight for w in module.w))
    equal(layer.weight_hh_l0, *(u.weight for u in module.u))
    equal(layer.bias_ih_l0, *(w.bias for w in module.w))
    assert not layer.bias_hh_l0.any()


@pytest.mark.parametrize("keep", [False, True])
def test_one_linear_in_another_order_of_gates(keep):
    module = by_hand.OneLinear()
    (layer,) = assert_reads(module, [LSTM], keep=keep).layers
    o, g, f, i = module.w.weight.detach().numpy().reshape(4, by_hand.HIDDEN, -1)
    inputs = by_hand.INPUTS
    equal(layer.weight_ih_l0, *(gate[:, :inputs] for gate in (i, f, g, o)))
    equal(layer.weight_hh_l0, *(gate[:, inputs:] for gate in (i, f, g, o)))
    equal(layer.bias_ih_l0, *module.w.bias.detach().numpy().reshape(4, -1)[[3, 2, 1, 0]])


@pytest.mark.parametrize("keep", [False, True])
def test_a_coupled_gate_is_the_other_negated(keep):
    module = by_hand.Coupled()
    (layer,) = assert_reads(module, [LSTM], keep=keep).layers
    i, f = layer.weight_ih_l0.reshape(4, by_hand.HIDDEN, -1)[:2]
    equal(f, module.w.weight[4:8])
    equal(i, -module.w.weight[4:8])


@pytest.mark.parametrize("keep", [False, True])
def test_peepholes(keep):
    module = by_hand.Peepholes()
    (layer,) = assert_reads(module, [LSTM], keep=keep).layers
    equal(layer.peephole_l0, *module.p)


@pytest.mark.parametrize("keep", [False, True])
def test_a_projection(keep):
    module = by_hand.Projected()
    (layer,) = assert_reads(module, [LSTM], keep=keep).layers
    equal(layer.weight_hr_l0, module.r.weight)
    equal(layer.weight_hh_l0, module.u.weight)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("form", ["torch", "keras", "other", "change"])
def test_a_gru_however_it_blends(form, learned, keep):
    start, bias = by_hand.starts(1) if learned else None, learned or keep
    module = by_hand.Gru(form, bias, start=start)
    (layer,) = assert_reads(module, [GRU], keep=keep).layers
    assert layer.reset == "after"
    r, z, n = module.w.weight.reshape(3, by_hand.HIDDEN, -1)
    equal(layer.weight_ih_l0, r, z if form in ("torch", "keras") else -z, n)
    if bias:
        equal(layer.bias_hh_l0[8:], module.u.bias[8:])
        equal(layer.bias_ih_l0[8:], module.w.bias[8:])
    if learned:
        equal(layer.h0, start[0])


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_a_gru_with_the_reset_before_the_product(learned, keep):
    module = by_hand.GruBefore(start=by_hand.starts(1) if learned else None)
    (layer,) = assert_reads(module, [GRU], keep=keep).layers
    assert layer.reset == "before"
    equal(layer.weight_hh_l0[8:], module.n.weight[:, by_hand.INPUTS :])
    equal(layer.bias_ih_l0[8:], module.n.bias)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("kind", ["tanh", "relu"])
def test_an_elman_cell(kind, keep):
    module = by_hand.Elman(kind=kind)
    (layer,) = assert_reads(module, [RNN], keep=keep).layers
    assert layer.nonlinearity == kind
    equal(layer.weight_ih_l0, module.w)
    equal(layer.weight_hh_l0, module.u)
    equal(layer.bias_ih_l0, module.b)
    assert_reads(by_hand.ElmanCat(), [RNN], keep=keep)


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        (by_hand.TwoLinears, LSTM),
        (by_hand.OneLinear, LSTM),
        (by_hand.Peepholes, LSTM),
        (by_hand.Elman, RNN),
        (by_hand.ElmanCat, RNN),
    ],
)
def test_learned_states(cell, kind):
    """Where a state stands in the graph beside its products, not folded into them."""
    module = cell(start=by_hand.starts(cell.count))
    (layer,) = assert_reads(module, [kind], keep=True).layers
    equal(layer.h0, module.start[0])
    if cell.count == 2:
        equal(layer.c0, module.start[1])


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        (by_hand.TwoLinears, by_hand.Elman, [LSTM, RNN]),
        (by_hand.Elman, by_hand.TwoLinears, [RNN, LSTM]),
        (by_hand.Elman, by_hand.Elman, [RNN, RNN]),
        (by_hand.Gru, by_hand.Elman, [GRU, RNN]),
    ],
)
def test_two_cells_in_one_loop(first, second, kinds, keep):
    module = by_hand.Stacked(first(), second(inputs=by_hand.HIDDEN))
    assert_reads(module, [*kinds, Dense, Residual], keep=keep)


@pytest.mark.parametrize(
    "cell", [by_hand.TwoLinears, by_hand.Elman, by_hand.Gru, by_hand.GruBefore, by_hand.Peepholes]
)
def test_two_loops_in_opposite_directions(cell):
    module = by_hand.BothWays(cell(), cell())
    layer, _ = assert_reads(module, [Bidirectional, Dense]).layers
    own = [read(half)[0].layers[0] for half in (module.one, module.other)]
    for found, expected in zip((layer.forward, layer.backward), own, strict=True):
        for name, array in expected.arrays.items():
            equal(found.arrays[name], array)


def test_two_directions_with_a_head_each():
    module = by_hand.HeadsApart(by_hand.TwoLinears(), by_hand.TwoLinears())
    model, _ = read(module)
    kinds = [type(layer) for layer in model.layers]
    assert kinds[0] is Bidirectional
    assert set(kinds[1:]) == {Dense, Residual}
    assert_reads(module, kinds)


@pytest.mark.parametrize(
    ("kind", "num_layers", "bias"),
    [("RNN", 2, True), ("RNN", 1, False), ("GRU", 1, True), ("LSTM", 1, True), ("LSTM", 2, False)],
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_torch_makes_of_its_own_modules(bidirectional, kind, num_layers, bias):
    """nn.RNN, GRU and LSTM taken apart by torch itself, as its ONNX exporter does with nn.RNN."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = getattr(nn, kind)(
                3, 4, num_layers, batch_first=True, bidirectional=bidirectional, bias=bias
            )

        def forward(self, x):
            return self.inner(x)[0]

    module = Net()
    one = Bidirectional if bidirectional else {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}[kind]
    model = assert_reads(module, [one] * num_layers)
    for k, layer in enumerate(model.layers):
        for name, array in layer.arrays.items():
            equal(array, getattr(module.inner, name.replace("_l0", f"_l{k}")))
