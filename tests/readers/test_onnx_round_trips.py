"""What our own exporter writes reads back: equal weights, equal outputs, in every form it has."""

import json

import numpy as np
import pytest

import cases
from fastlstm import from_onnx, reference
from fastlstm.errors import ReaderError
from fastlstm.model import Affine, Difference, LayerNorm, Model
from fastlstm.readers.places import layer_key

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from fastlstm.export import onnx_graph  # noqa: E402  after the skip
from fastlstm.export.onnx_half import rounded  # noqa: E402

CELLS = {
    "lstm": ("LSTM", {}),
    "lstm-no-bias": ("LSTM", {"bias": False}),
    "peephole": ("LSTM", {"peephole": True}),
    "projection": ("LSTM", {"projection": 4}),
    "projection-of-one": ("LSTM", {"projection": 1}),
    "projection-larger": ("LSTM", {"projection": 9}),
    "peephole-and-projection": ("LSTM", {"peephole": True, "projection": 6}),
    "gru": ("GRU", {}),
    "gru-before": ("GRU", {"reset": "before"}),
    "rnn": ("RNN", {}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}),
}
FORMS = {
    "written": {},
    "bare": {"bare": True},
    "lengths": {"lengths": True},
    "half": {"half": True},
}


def keys(model):
    return [layer_key(layer) for layer in model.layers]


def assert_reads_back(model, **form):
    """Every layer, option and array to the bit, and so every output."""
    expected = rounded(model) if form.get("half") else model
    found = from_onnx(onnx_graph.build(model, **form).SerializeToString())
    assert keys(found) == keys(expected)
    x = reference.check_input(model, 9)
    assert np.array_equal(reference.run(found, x), reference.run(expected, x))
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layers", [1, pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_in_one_to_three_layers(name, both, layers, form):
    kind, options = CELLS[name]
    make = cases.bidirectional if both else cases.recurrent
    chain, size = [], 3
    for seed in range(layers):
        # With and without a learned start, which a file without a card of ours would not have.
        chain.append(make(kind, size, 7, seed=seed, initial=seed != 1, **options))
        size = chain[-1].output_size
    assert_reads_back(Model((*chain, cases.dense(size, 2))), **FORMS[form])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", cases.MODELS)
def test_every_awkward_model(name, form):
    assert_reads_back(cases.model(name), **FORMS[form])


@pytest.mark.parametrize("form", FORMS)
def test_layers_without_gates(form):
    # A norm first and last, a difference that begins elsewhere than at 0, a scaling on both ends.
    start = np.arange(5, dtype=np.float32)
    model = Model(
        (
            cases.affine(5),
            Difference(5, start),
            LayerNorm(np.ones(5, np.float32), None, 1e-3),
            cases.dense(5, 5, "tanh", bias=False),
            cases.residual(3, 5),
            cases.layer_norm(5, eps=1e-6),
            Affine(np.ones(5, np.float32), np.full(5, 2, np.float32)),
        )
    )
    found = assert_reads_back(model, **FORMS[form])
    assert found.layers[1].x0.tolist() == start.tolist()


def test_the_models_metadata_come_back():
    about = {"columns": ["time", "value"], "recipe": {"epochs": 3}}
    model = Model((cases.recurrent("GRU", 2, 3),), about)
    data = onnx_graph.build(model).SerializeToString()
    assert dict(from_onnx(data).metadata) == about
    assert dict(from_onnx(data, metadata={"mine": 1}).metadata) == {"mine": 1}


def test_the_graph_decides_and_not_the_card():
    model = Model((cases.recurrent("LSTM", 2, 3, initial=True), cases.dense(3, 1)))
    proto = onnx_graph.build(model)
    card = json.loads(proto.metadata_props[0].value)
    card["layers"] = [{"kind": "GRU", "input_size": 9, "output_size": 9}]
    card["check_output"] = [[0.0]]
    proto.metadata_props[0].value = json.dumps(card)
    assert keys(from_onnx(proto.SerializeToString())) == keys(model)
    # Without a card the states begin at zeros, and nothing else is lost.
    del proto.metadata_props[:]
    found = from_onnx(proto.SerializeToString())
    assert found.layers[0].h0 is None
    assert found.layers[0].c0 is None
    assert np.array_equal(found.layers[0].weight_ih_l0, model.layers[0].weight_ih_l0)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (json.dumps({"states": [{"input": "h0_l0", "initial": [1]}]}), "finite values"),
        (json.dumps({"states": [{"input": "h0_l0", "initial": ["a", "b", "c"]}]}), "finite values"),
        ('{"states": [{"input": "h0_l0", "initial": [1, 2, NaN]}]}', "finite values"),
    ],
)
def test_a_damaged_card_is_refused(card, message):
    proto = onnx_graph.build(Model((cases.recurrent("RNN", 2, 3),)))
    proto.metadata_props[0].value = card
    with pytest.raises(ReaderError, match=message):
        from_onnx(proto.SerializeToString())


@pytest.mark.parametrize("card", ["3", "[]", '{"states": 3}', '{"states": [3, {"input": []}]}'])
def test_a_card_that_says_nothing_is_passed_over(card):
    model = Model((cases.recurrent("RNN", 2, 3),))
    proto = onnx_graph.build(model)
    proto.metadata_props[0].value = card
    assert keys(from_onnx(proto.SerializeToString())) == keys(model)


def test_a_path_and_external_data(tmp_path):
    model = Model((cases.recurrent("LSTM", 2, 40), cases.dense(40, 1)))
    proto = onnx_graph.build(model)
    onnx.save(proto, tmp_path / "one.onnx")
    onnx.save(
        proto, tmp_path / "two.onnx", save_as_external_data=True, location="two.data",
        size_threshold=0,
    )  # fmt: skip
    for name in ("one.onnx", "two.onnx"):
        assert keys(from_onnx(tmp_path / name)) == keys(model)
        assert keys(from_onnx(str(tmp_path / name))) == keys(model)
