"""Projections, peepholes, resets and both directions in the model file: written, read, damaged."""

import numpy as np
import pytest
from safetensors.numpy import load as read_tensors

import cases
from fastlstm import model_file, reference
from fastlstm.model import GRU, Model
from test_model_file import add, document_of, drop, put, refused, saved_and_loaded, with_document

LSTM_EXTRAS = {"projection": 2, "peephole": True, "initial": True}
CELLS = {
    "projection": lambda: cases.recurrent("LSTM", 3, 5, projection=2),
    "peepholes": lambda: cases.recurrent("LSTM", 3, 5, peephole=True),
    "everything": lambda: cases.recurrent("LSTM", 3, 5, **LSTM_EXTRAS),
    "reset before": lambda: cases.recurrent("GRU", 3, 5, reset="before"),
    "LSTM both ways": lambda: cases.bidirectional("LSTM", 3, 5, **LSTM_EXTRAS),
    "LSTM both ways, no bias": lambda: cases.bidirectional("LSTM", 3, 5, bias=False),
    "GRU both ways": lambda: cases.bidirectional("GRU", 3, 5, reset="before", initial=True),
    "RNN both ways": lambda: cases.bidirectional("RNN", 3, 5, nonlinearity="relu"),
}


@pytest.mark.parametrize("name", list(CELLS))
def test_round_trip_of_every_cell(tmp_path, name):
    layer = CELLS[name]()
    model = Model((layer, cases.dense(layer.output_size, 2)))
    loaded = saved_and_loaded(model, tmp_path / "model.safetensors")
    assert [(s.name, s.size) for s in loaded.states] == [(s.name, s.size) for s in model.states]
    x = cases.stream(model, 20)
    found, true = (reference.run_with_state(m, x) for m in (loaded, model))
    assert np.array_equal(found.output, true.output)
    assert all(map(np.array_equal, found.state, true.state))


def test_every_cell_has_the_tensors_and_options_of_the_readme():
    def written(layer):
        data = model_file.to_bytes(Model((layer,)))
        shapes = {n[9:]: a.shape for n, a in read_tensors(data).items() if n.startswith("layers.0")}
        return document_of(data)["layers"], shapes

    one_way = {
        "weight_ih_l0": (20, 3),
        "weight_hh_l0": (20, 2),
        "bias_ih_l0": (20,),
        "bias_hh_l0": (20,),
        "weight_hr_l0": (2, 5),
        "peephole_l0": (15,),
        "h0": (2,),
        "c0": (5,),
    }
    assert written(CELLS["everything"]()) == ([{"kind": "LSTM"}], one_way)
    layers, shapes = written(CELLS["LSTM both ways"]())
    assert layers == [{"kind": "Bidirectional", "cell": "LSTM"}]
    assert shapes == one_way | {f"{name}_reverse": shape for name, shape in one_way.items()}
    gru = {"kind": "Bidirectional", "cell": "GRU", "reset": "before"}
    assert written(CELLS["GRU both ways"]())[0] == [gru]
    rnn = {"kind": "Bidirectional", "cell": "RNN", "nonlinearity": "relu"}
    assert written(CELLS["RNN both ways"]())[0] == [rnn]


def test_the_digest_covers_where_the_reset_gate_acts():
    layer = cases.recurrent("GRU", 2, 4)
    other = GRU(**layer.arrays, reset="before")
    ours, theirs = (document_of(model_file.to_bytes(Model((k,)))) for k in (layer, other))
    assert ours["layers"] == [{"kind": "GRU", "reset": "after"}]
    assert theirs["layers"] == [{"kind": "GRU", "reset": "before"}]
    assert ours["digest"] != theirs["digest"]


FULL = model_file.to_bytes(Model((CELLS["everything"](),)))
BOTH = model_file.to_bytes(Model((cases.bidirectional("LSTM", 3, 2),)))
RESET = model_file.to_bytes(Model((cases.recurrent("GRU", 2, 3, reset="before"),)))


def shape(name, *sizes):
    """One layer's tensor with other sizes, and values that are as good as any."""
    return lambda document, tensors: tensors.update(
        {f"layers.0.{name}": np.full(sizes, 0.5, np.float32)}
    )


def first(**options):
    return lambda document, tensors: document["layers"][0].update(options)


def without(name):
    return lambda document, tensors: document["layers"][0].pop(name)


def one_half(document, tensors):
    for name in [name for name in tensors if name.endswith("_reverse")]:
        del tensors[name]


def larger_half(document, tensors):
    for name, array in cases.recurrent("LSTM", 3, 4).arrays.items():
        tensors[f"layers.0.{name}_reverse"] = array


def exchanged(document, tensors):
    for name in [name for name in tensors if name.endswith("_reverse")]:
        other = name.removesuffix("_reverse")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def halved(document, tensors):
    tensors["layers.0.peephole_l0"] = tensors["layers.0.peephole_l0"] / 2


HOSTILE = {
    "short peephole": (
        with_document(FULL, shape("peephole_l0", 10)),
        r"layer 0: LSTM.peephole_l0: expected shape \(15,\), found \(10,\)",
    ),
    "peephole by gate": (with_document(FULL, shape("peephole_l0", 3, 5)), r"found \(3, 5\)"),
    "peephole changed": (with_document(FULL, halved), "check vector replays"),
    "projection of other units": (
        with_document(FULL, shape("weight_hr_l0", 2, 6)),
        r"LSTM.weight_hr_l0: expected shape \(2, 5\), found \(2, 6\)",
    ),
    "projection of other size": (
        with_document(FULL, shape("weight_hr_l0", 3, 5)),
        r"LSTM.weight_hh_l0: expected shape \(20, 3\), found \(20, 2\)",
    ),
    "projection flat": (with_document(FULL, shape("weight_hr_l0", 10)), "two axes"),
    "projection dropped": (with_document(FULL, drop("layers.0.weight_hr_l0")), "weight_hh_l0"),
    "projection of a GRU": (with_document(RESET, shape("weight_hr_l0", 2, 3)), "layer 0: GRU"),
    "other reset": (with_document(RESET, first(reset="after")), "check vector replays"),
    "unknown reset": (with_document(RESET, first(reset="never")), "after, before.*'never'"),
    "reset left out": (
        with_document(RESET, without("reset")),
        r"layer 0: GRU: expected the options \(reset\), found \(none\)",
    ),
    "reset of an LSTM": (with_document(FULL, first(reset="after")), r"found \(reset\)"),
    "one half": (with_document(BOTH, one_half), "layer 0: Bidirectional: the arrays"),
    "half a half": (
        with_document(BOTH, drop("layers.0.weight_hh_l0_reverse")),
        "layer 0: Bidirectional: the arrays",
    ),
    "larger half": (
        with_document(BOTH, larger_half),
        "Bidirectional.backward: expected a layer like forward.*hidden_size 2.*hidden_size 4",
    ),
    "exchanged halves": (with_document(BOTH, exchanged), "check vector replays"),
    "cell Dense": (with_document(BOTH, first(cell="Dense")), "LSTM, GRU, RNN, found 'Dense'"),
    "cell of its own kind": (with_document(BOTH, first(cell="Bidirectional")), "LSTM, GRU, RNN"),
    "cell no text": (with_document(BOTH, first(cell=["LSTM"])), "layer 0: Bidirectional"),
    "cell GRU": (with_document(BOTH, first(cell="GRU")), r"expected the options \(cell, reset\)"),
    "cell RNN": (
        with_document(BOTH, first(cell="RNN", nonlinearity="tanh")),
        "RNN.weight_hh_l0",
    ),
    "cell left out": (with_document(BOTH, without("cell")), r"expected the options \(cell\)"),
    "both ways as one": (with_document(BOTH, put("layers", [{"kind": "LSTM"}])), "the arrays"),
    "a third half": (
        with_document(BOTH, add("layers.0.weight_ih_l0_reverse_reverse")),
        "layer 0: Bidirectional: the arrays",
    ),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_damaged_cell_is_refused_and_says_why(tmp_path, name):
    refused(tmp_path, *HOSTILE[name])
