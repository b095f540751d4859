"""LayerNorm, Difference and Residual in the model file: written, read, and where they lie."""

import json

import numpy as np
import pytest
from safetensors.numpy import load as read_tensors

import cases
from fastlstm import model_file, reference
from fastlstm.model import Difference, LayerNorm, Model, Residual
from test_model_file import add, document_of, drop, refused, saved_and_loaded, with_document

MODEL = Model(
    (
        cases.difference(3),
        cases.layer_norm(3, eps=1e-12),
        cases.dense(3, 5),
        Residual(2, (2, 0, 0, 1, 2)),
        cases.layer_norm(5, bias=False, eps=0.1),
        Difference(5),
        cases.bidirectional("GRU", 5, 2),
        Residual(4, (4, 0, 3, 3)),
    )
)
DATA = model_file.to_bytes(MODEL)


def test_round_trip(tmp_path):
    loaded = saved_and_loaded(MODEL, tmp_path / "model.safetensors")
    assert [(s.name, s.size) for s in loaded.states] == [(s.name, s.size) for s in MODEL.states]
    x = cases.stream(MODEL, 20)
    found, true = (reference.run_with_state(m, x) for m in (loaded, MODEL))
    assert np.array_equal(found.output, true.output)
    assert all(map(np.array_equal, found.state, true.state))


def test_every_layer_has_the_tensors_and_options_of_the_readme():
    assert [layer for layer in document_of(DATA)["layers"] if "cell" not in layer] == [
        {"kind": "Difference", "size": 3},
        {"kind": "LayerNorm", "eps": 1e-12},
        {"kind": "Dense", "activation": "linear"},
        {"kind": "Residual", "back": 2, "columns": [2, 0, 0, 1, 2]},
        {"kind": "LayerNorm", "eps": 0.1},
        {"kind": "Difference", "size": 5},
        {"kind": "Residual", "back": 4, "columns": [4, 0, 3, 3]},
    ]
    shapes = {name: array.shape for name, array in read_tensors(DATA).items()}
    ours = {
        n: s for n, s in shapes.items() if n[:9] in [f"layers.{k}." for k in (0, 1, 3, 4, 5, 7)]
    }
    assert ours == {
        "layers.0.x0": (3,),
        "layers.1.weight": (3,),
        "layers.1.bias": (3,),
        "layers.4.weight": (5,),
    }


def test_the_digest_covers_what_no_tensor_shows():
    layers = [cases.layer_norm(2), cases.dense(2, 2)]
    models = [
        Model((*layers, Residual(1, (0, 1)))),
        Model((*layers, Residual(2, (0, 1)))),
        Model((*layers, Residual(1, (0, 0)))),
        Model((cases.layer_norm(2, eps=1e-6), layers[1], Residual(1, (0, 1)))),
    ]
    digests = {document_of(model_file.to_bytes(model))["digest"] for model in models}
    assert len(digests) == 4
    # And so does that of a snapshot.
    snapshots = {model.stream().snapshot()[8:24] for model in models}
    assert len(snapshots) == 4


def at(position, **options):
    return lambda document, tensors: document["layers"][position].update(options)


def without(position, name):
    return lambda document, tensors: document["layers"][position].pop(name)


def lies(position, name, values, words, *, digest=True):
    """A file for each of `values` of one option, and what is said of it."""
    return {
        f"{name} {json.dumps(value)[:30]} in layer {position}": (
            with_document(DATA, at(position, **{name: value}), digest=digest),
            words,
        )
        for value in values
    }


HOSTILE = {
    **lies(1, "eps", (0.0, -1.0, 1e-13, 1, True, None, "1e-5", [1e-5]), r"layer 1: LayerNorm\.eps"),
    # Not JSON, and Python reads them all the same.
    **lies(1, "eps", (float("inf"), float("nan")), r"layer 1: LayerNorm\.eps", digest=False),
    **lies(5, "size", (0, -5, 5.0, True, None, "5", [5]), r"layer 5: Difference\.size"),
    **lies(5, "size", (4, 6, 10**15), r"layer 5 \(Difference\): expected an input of 5"),
    **lies(0, "size", (2, 4, 10**15), r"layer 0: Difference\.x0"),
    **lies(3, "back", (0, -1, 1.0, True, None, "1", [1]), r"layer 3: Residual\.back"),
    **lies(3, "back", (4, 10**15), r"layer 3 \(Residual\)\.back: expected at most 3"),
    # One that fits, but is not what the file's numbers were made with.
    **lies(3, "back", (1, 3), "check vector replays"),
    **lies(
        3,
        "columns",
        ([], [-1] * 5, [1.0] * 5, [True] * 5, [None] * 5, [[0]] * 5, ["0"] * 5, 3, None, "01201"),
        r"layer 3: Residual\.columns",
    ),
    **lies(3, "columns", ([0] * 4, [0] * 6), r"layer 3 \(Residual\): expected an input of 5"),
    **lies(3, "columns", ([3] * 5, [2**63] * 5), r"layer 3 \(Residual\)\.columns: .*below 3"),
    **lies(3, "columns", ([2, 0, 0, 1, 1],), "check vector replays"),
    **lies(7, "columns", ([0, 0, 0, 5],), r"layer 7 \(Residual\)\.columns: .*below 5"),
    "eps left out": (with_document(DATA, without(1, "eps")), r"the options \(eps\)"),
    "size left out": (with_document(DATA, without(5, "size")), r"the options \(size\)"),
    "back left out": (with_document(DATA, without(3, "back")), r"the options \(back, columns\)"),
    "an option of another kind": (with_document(DATA, at(5, eps=1e-5)), r"found \(eps, size\)"),
    "a tensor of a Residual": (with_document(DATA, add("layers.3.weight")), "Residual: the arrays"),
    "no weight of a norm": (with_document(DATA, drop("layers.1.weight")), "LayerNorm"),
    "no bias of a norm": (with_document(DATA, drop("layers.1.bias")), "check vector replays"),
    "no x0": (with_document(DATA, drop("layers.0.x0")), "check vector replays"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_lying_file_is_refused_and_says_why(tmp_path, name):
    refused(tmp_path, *HOSTILE[name])


def test_the_lies_are_many():
    """A name that two of them share would hide one."""
    assert len(HOSTILE) == 58


def test_the_smallest_norm_and_difference(tmp_path):
    one = np.ones(1, np.float32)
    model = Model((Difference(1), LayerNorm(one), Residual(2, (0,))))
    saved_and_loaded(model, tmp_path / "model.safetensors")
    assert reference.run(model, [[3], [4]]).tolist() == [[3], [4]]
