"""Model: every shape error is caught when it is made, and names the layer, array and shapes."""

import copy
import pickle

import numpy as np
import pytest

import cases
from fastlstm.errors import ModelError
from fastlstm.layers import build
from fastlstm.model import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Bidirectional,
    Dense,
    Difference,
    LayerNorm,
    Model,
    Residual,
)


def zeros(*shape):
    return np.zeros(shape, np.float32)


def test_sizes_follow_from_the_weights():
    model = Model((LSTM(zeros(20, 3), zeros(20, 5)), Dense(zeros(2, 5), zeros(2))))
    assert (model.input_size, model.output_size, model.num_parameters) == (3, 2, 172)
    assert [(s.layer, s.name, s.size) for s in model.states] == [(0, "h", 5), (0, "c", 5)]


def test_a_projection_makes_h_and_the_output_smaller_than_c():
    layer = LSTM(zeros(20, 3), zeros(20, 2), weight_hr_l0=zeros(2, 5), peephole_l0=zeros(15))
    model = Model((layer, Dense(zeros(1, 2))))
    assert (layer.hidden_size, layer.output_size, layer.input_size) == (5, 2, 3)
    assert [(s.name, s.size) for s in model.states] == [("h", 2), ("c", 5)]
    assert model.num_parameters == 60 + 40 + 10 + 15 + 2


def test_both_directions_put_out_twice_the_size_and_carry_both_states():
    layer = cases.bidirectional("LSTM", 3, 5, projection=2, initial=True)
    model = Model((Affine(zeros(3), zeros(3)), layer, Dense(zeros(1, 4))))
    assert (layer.cell, layer.hidden_size, layer.output_size) == ("LSTM", 5, 4)
    expected = [
        (1, "h", layer.forward.h0),
        (1, "c", layer.forward.c0),
        (1, "h_reverse", layer.backward.h0),
        (1, "c_reverse", layer.backward.c0),
    ]
    for state, (position, name, initial) in zip(model.states, expected, strict=True):
        assert (state.layer, state.name, state.size) == (position, name, len(initial))
        assert np.array_equal(state.initial, initial)
    assert model.bidirectional
    assert not Model((layer.forward,)).bidirectional


@pytest.mark.parametrize(
    "make",
    [
        lambda: cases.recurrent("LSTM", 3, 5, projection=2, peephole=True, initial=True),
        lambda: cases.recurrent("GRU", 3, 5, reset="before"),
        lambda: cases.recurrent("RNN", 3, 5, nonlinearity="relu", bias=False),
        lambda: cases.bidirectional("LSTM", 3, 5, projection=2, peephole=True, initial=True),
        lambda: cases.bidirectional("GRU", 3, 5, reset="before", bias=False),
        lambda: cases.bidirectional("RNN", 3, 5, nonlinearity="relu"),
        lambda: cases.dense(3, 5, "relu"),
        lambda: cases.affine(3),
        lambda: cases.layer_norm(3, eps=0.5),
        lambda: cases.layer_norm(3, bias=False),
        lambda: cases.difference(3),
        lambda: Difference(3),
        lambda: Residual(2, (1, 0, 1)),
    ],
)
def test_a_layer_is_built_from_its_own_description(make):
    layer = make()
    twin = build(layer.kind, layer.arrays, layer.options)
    assert (type(twin), twin.options) == (type(layer), layer.options)
    assert twin.arrays.keys() == layer.arrays.keys()
    assert all(np.array_equal(array, layer.arrays[name]) for name, array in twin.arrays.items())
    assert [s.initial.tolist() for s in twin.states] == [s.initial.tolist() for s in layer.states]


def one_way(kind="LSTM", inputs=3, hidden=5, **options):
    return cases.recurrent(kind, inputs, hidden, **options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: LSTM(zeros(8, 1), zeros(8, 2), peephole_l0=zeros(8)),
            ["LSTM.peephole_l0", "(6,)", "(8,)"],
        ),
        (
            lambda: LSTM(zeros(8, 1), zeros(8, 2), weight_hr_l0=zeros(1, 3)),
            ["LSTM.weight_hr_l0", "(1, 2)", "(1, 3)"],
        ),
        (
            lambda: LSTM(zeros(8, 1), zeros(8, 2), weight_hr_l0=zeros(1, 2)),
            ["LSTM.weight_hh_l0", "(8, 1)", "(8, 2)"],
        ),
        (
            lambda: LSTM(zeros(8, 1), zeros(8, 1), weight_hr_l0=zeros(1, 2), h0=zeros(2)),
            ["LSTM.h0", "(1,)", "(2,)"],
        ),
        (
            lambda: LSTM(zeros(8, 1), zeros(8, 1), weight_hr_l0=zeros(1, 2), c0=zeros(1)),
            ["LSTM.c0", "(2,)", "(1,)"],
        ),
        (
            lambda: LSTM(zeros(8, 1), zeros(8, 2), weight_hr_l0=zeros(2)),
            ["LSTM.weight_hr_l0", "two axes", "(2,)"],
        ),
        (lambda: GRU(zeros(6, 1), zeros(6, 2), reset="early"), ["after, before", "'early'"]),
        (
            lambda: Bidirectional(one_way(), one_way("GRU")),
            ["Bidirectional.backward", "LSTM(3, 5)", "GRU(3, 5"],
        ),
        (
            lambda: Bidirectional(one_way(), one_way(inputs=4)),
            ["Bidirectional.backward", "LSTM(3, 5)", "LSTM(4, 5)"],
        ),
        (
            lambda: Bidirectional(one_way(hidden=4, projection=2), one_way(projection=2)),
            ["Bidirectional.backward", "hidden_size 4", "hidden_size 5"],
        ),
        (
            lambda: Bidirectional(one_way("GRU"), one_way("GRU", reset="before")),
            ["Bidirectional.backward", "reset='after'", "reset='before'"],
        ),
        (
            lambda: Bidirectional(one_way(), Dense(zeros(5, 3))),
            ["Bidirectional.backward", "LSTM, GRU or RNN", "Dense"],
        ),
        (lambda: Bidirectional(None, one_way()), ["Bidirectional.forward", "NoneType"]),
        (
            lambda: Bidirectional.from_arrays(one_way().arrays, "Dense"),
            ["Bidirectional.cell", "LSTM, GRU, RNN", "'Dense'"],
        ),
        (
            lambda: Model((cases.bidirectional("RNN", 2, 3), Dense(zeros(1, 3)))),
            ["layer 1 (Dense).weight", "(1, 6)", "puts out 6", "(1, 3)"],
        ),
        (
            lambda: Model((Dense(zeros(2, 1)), cases.bidirectional("RNN", 3, 4))),
            ["layer 1 (Bidirectional).weight_ih_l0", "(4, 2)", "(4, 3)"],
        ),
        (lambda: build("Bidirectional", {}, {"cell": "LSTM"}), ["Bidirectional", "(none)"]),
        (lambda: build("GRU", one_way("GRU").arrays, {}), ["options (reset)", "found (none)"]),
        (lambda: build("Conv", {}, {}), ["expected a kind", "Bidirectional", "'Conv'"]),
        (lambda: LSTM(zeros(20, 3), zeros(20, 4)), ["LSTM.weight_hh_l0", "(20, 5)", "(20, 4)"]),
        (lambda: LSTM(zeros(21, 3), zeros(20, 5)), ["LSTM.weight_ih_l0", "4 gates", "(21, 3)"]),
        (lambda: GRU(zeros(20, 3), zeros(20, 5)), ["GRU.weight_ih_l0", "3 gates", "(20, 3)"]),
        (
            lambda: GRU(zeros(15, 3), zeros(15, 5), zeros(15), zeros(14)),
            ["GRU.bias_hh_l0", "(15,)", "(14,)"],
        ),
        (lambda: LSTM(zeros(8, 1), zeros(8, 2), zeros(8)), ["bias_ih_l0 and bias_hh_l0"]),
        (lambda: LSTM(zeros(8, 1), zeros(8, 2), h0=zeros(3)), ["LSTM.h0", "(2,)", "(3,)"]),
        (lambda: LSTM(zeros(8, 1), zeros(8, 2), c0=zeros(1)), ["LSTM.c0", "(2,)", "(1,)"]),
        (lambda: RNN(zeros(4), zeros(4, 4)), ["RNN.weight_ih_l0", "two axes", "(4,)"]),
        (lambda: RNN(zeros(4, 1), zeros(4, 4), nonlinearity="gelu"), ["tanh, relu", "'gelu'"]),
        (lambda: Dense(zeros(2, 5), zeros(3)), ["Dense.bias", "(2,)", "(3,)"]),
        (lambda: Dense(zeros(2, 5), activation="step"), ["Dense.activation", "linear", "'step'"]),
        (lambda: Dense(zeros(0, 5)), ["Dense.weight", "at least 1", "(0, 5)"]),
        (lambda: Affine(zeros(2), zeros(3)), ["Affine.shift", "(2,)", "(3,)"]),
        (lambda: Affine(zeros(2, 2), zeros(2)), ["Affine.scale", "one axis", "(2, 2)"]),
        (lambda: LayerNorm(zeros(0)), ["LayerNorm.weight", "one axis", "(0,)"]),
        (lambda: LayerNorm(zeros(2, 2)), ["LayerNorm.weight", "one axis", "(2, 2)"]),
        (lambda: LayerNorm(None), ["LayerNorm.weight", "one axis", "()"]),
        (lambda: LayerNorm(zeros(3), zeros(2)), ["LayerNorm.bias", "(3,)", "(2,)"]),
        *(
            (lambda eps=eps: LayerNorm(zeros(3), eps=eps), ["LayerNorm.eps", "1e-12", repr(eps)])
            for eps in (0.0, -1e-5, 1e-13, 1, True, None, "1e-5", float("nan"), float("inf"))
        ),
        *(
            (lambda n=n: Difference(n), ["Difference.size", "at least 1", repr(n)])
            for n in (0, -2, 2.0, True, None, "3")
        ),
        (lambda: Difference(3, zeros(2)), ["Difference.x0", "(3,)", "(2,)"]),
        (lambda: Difference(2, np.zeros(2)), ["Difference.x0", "float32", "float64"]),
        *(
            (lambda n=n: Residual(n, (0,)), ["Residual.back", "at least 1", repr(n)])
            for n in (0, -1, 1.0, True, None)
        ),
        *(
            (
                lambda columns=columns: Residual(1, columns),
                ["Residual.columns", "at least one column", "whole number", repr(columns)],
            )
            for columns in ((), (-1,), (0, 1.0), (True,), (None,), 3, None, "01")
        ),
        (
            lambda: Model((Residual(1, (0,)),)),
            ["layer 0 (Residual).back", "at most 0", "no more layers", "found 1"],
        ),
        (
            lambda: Model((cases.affine(2), Residual(2, (0, 1)))),
            ["layer 1 (Residual).back", "at most 1", "found 2"],
        ),
        (
            lambda: Model((Dense(zeros(3, 2)), Residual(1, (0, 1, 2)))),
            ["layer 1 (Residual).columns", "below 2", "layer 0 (Dense) takes 2", "found 2"],
        ),
        (
            lambda: Model((Dense(zeros(3, 2)), Residual(1, (0, 1)))),
            ["layer 1 (Residual)", "an input of 3", "layer 0 (Dense) puts out 3", "found 2"],
        ),
        (
            lambda: Model((Dense(zeros(3, 2)), LayerNorm(zeros(2)))),
            ["layer 1 (LayerNorm).weight", "(3,)", "(2,)"],
        ),
        *(
            (
                lambda layer=layer: Model((Dense(zeros(3, 2)), layer)),
                ["layer 1 (Difference)", "an input of 3", "found 2"],
            )
            for layer in (Difference(2), Difference(2, zeros(2)))
        ),
        (lambda: build("LayerNorm", {}, {"eps": 1e-5}), ["LayerNorm", "(none)"]),
        (lambda: build("LayerNorm", {"weight": zeros(2)}, {}), ["options (eps)", "(none)"]),
        (lambda: build("Difference", {}, {}), ["options (size)", "found (none)"]),
        (lambda: build("Residual", {}, {"back": 1}), ["options (back, columns)", "(back)"]),
        (
            lambda: build("Residual", {"weight": zeros(2)}, {"back": 1, "columns": [0]}),
            ["Residual", "the arrays (weight)"],
        ),
        (lambda: Dense(np.zeros((2, 5))), ["Dense.weight", "float32", "float64", "astype"]),
        (lambda: Dense([[1.0]]), ["Dense.weight", "list"]),
        (lambda: Dense(np.full((1, 2), np.nan, np.float32)), ["Dense.weight", "finite", "(0, 0)"]),
        (
            lambda: Model((Dense(zeros(4, 2)), LSTM(zeros(8, 3), zeros(8, 2)))),
            ["layer 1 (LSTM).weight_ih_l0", "(8, 4)", "layer 0 (Dense)", "(8, 3)"],
        ),
        (
            lambda: Model((Dense(zeros(4, 2)), Affine(zeros(3), zeros(3)))),
            ["layer 1 (Affine).scale", "(4,)", "(3,)"],
        ),
        (lambda: Model(()), ["at least one layer"]),
        (lambda: Model((np.zeros(3),)), ["layer 0", "LSTM", "ndarray"]),
        (lambda: Model((type("Mine", (Affine,), {})(zeros(1), zeros(1)),)), ["layer 0", "Mine"]),
        (lambda: Model(cases.affine(1)), ["sequence of layers", "Affine"]),
        (lambda: Model(None), ["sequence of layers", "NoneType"]),
        (lambda: Model((cases.affine(1),), {"a": {1, 2}}), ["metadata", "JSON"]),
    ],
)
def test_an_error_names_what_is_wrong(make, words):
    with pytest.raises(ModelError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def test_a_difference_carries_its_last_input():
    model = Model((cases.dense(2, 3), cases.difference(3), cases.recurrent("GRU", 3, 4)))
    found = [(s.layer, s.name, s.size) for s in model.states]
    assert found == [(1, "x", 3), (2, "h", 4)]
    assert np.array_equal(model.states[0].initial, model.layers[1].x0)
    assert not Difference(3).states[0].initial.any()


def test_columns_may_come_in_any_sequence_and_stay_as_they_were():
    given = [2, 0]
    layer = Residual(1, given)
    given[0] = 5
    assert layer.columns == (2, 0)
    assert (layer.input_size, layer.output_size) == (2, 2)
    assert layer.options == {"back": 1, "columns": [2, 0]}
    assert Residual(1, range(3)).columns == (0, 1, 2)


def test_a_model_owns_its_arrays():
    weight = np.ones((1, 2), np.float32)
    model = Model((Dense(weight),))
    weight[:] = 7
    assert model.layers[0].weight.tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="read-only"):
        model.layers[0].weight[0, 0] = 3
    with pytest.raises(TypeError):
        model.metadata["a"] = 1


def test_fortran_ordered_and_strided_weights_mean_the_same():
    layer = cases.recurrent("LSTM", 3, 6)
    wide = np.zeros((24, 12), np.float32)
    wide[:, ::2] = layer.weight_hh_l0
    other = LSTM(
        np.asfortranarray(layer.weight_ih_l0), wide[:, ::2], layer.bias_ih_l0, layer.bias_hh_l0
    )
    x = cases.stream(Model((layer,)), 20)
    assert np.array_equal(Model((layer,)).stream().run(x), Model((other,)).stream().run(x))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize(
    "layers",
    [
        *(cases.model(n).layers for n in ("mixed", "learned-start", "no-bias", "rnn-relu")),
        (one_way(projection=2, peephole=True), one_way("GRU", 2, reset="before")),
        (cases.bidirectional("LSTM", 3, 5, projection=2, peephole=True, initial=True),),
        (cases.difference(3), cases.layer_norm(3), cases.dense(3, 2), Residual(2, (2, 1))),
    ],
)
def test_a_model_reaches_another_process_whole_and_as_immutable(layers, again):
    model = Model(layers, {"unit": "ppm"})
    twin = again(model)
    assert dict(twin.metadata) == {"unit": "ppm"}
    for ours, theirs in zip(model.layers, twin.layers, strict=True):
        assert (type(ours), ours.options) == (type(theirs), theirs.options)
        assert ours.arrays.keys() == theirs.arrays.keys()
        for key, array in theirs.arrays.items():
            assert np.array_equal(array, ours.arrays[key])
            assert not array.flags.writeable
