"""Whole sequences: Model.run against the reference, in both directions and in one."""

import numpy as np
import pytest

import cases
import fastlstm
from fastlstm import reference, sequence
from fastlstm.errors import InputError, ModelError
from fastlstm.model import Affine, Bidirectional, Model, Residual
from fastlstm.roads import ROADS, SequenceSession, StreamSession
from fastlstm.verify import judge, truth

# In Bidirectional models the second layer of one kind takes both halves of the first.
MODELS = {
    **{
        f"{kind} alone": lambda kind=kind: [cases.bidirectional(kind, 3, 9)] for kind in cases.GATES
    },
    **{
        f"{kind}, 2 layers": lambda kind=kind: [
            cases.bidirectional(kind, 2, 17),
            cases.bidirectional(kind, 34, 6, seed=1, bias=False),
        ]
        for kind in cases.GATES
    },
    "between others": lambda: [
        cases.affine(3),
        cases.dense(3, 5, "tanh"),
        cases.bidirectional("LSTM", 5, 8),
        cases.dense(16, 4, "relu"),
        cases.recurrent("GRU", 4, 7),
        cases.bidirectional("GRU", 7, 3),
        cases.dense(6, 2, "softmax"),
        cases.affine(2),
    ],
    "learned start": lambda: [
        cases.bidirectional("LSTM", 2, 8, initial=True),
        cases.recurrent("LSTM", 16, 5, initial=True),
        cases.bidirectional("RNN", 5, 4, initial=True, nonlinearity="relu"),
    ],
    # Connections within a piece, from one to another, and across one that is cut for another.
    "connections": lambda: [
        cases.difference(3),
        cases.dense(3, 4),
        cases.recurrent("GRU", 4, 4, initial=True),
        cases.layer_norm(4),
        cases.residual(2, 4),
        cases.bidirectional("LSTM", 4, 2, initial=True),
        cases.residual(1, 4),
        cases.residual(4, 4),
        Residual(8, (2, 0, 2, 1)),
        cases.difference(4),
        cases.dense(4, 4, "tanh"),
        cases.residual(1, 4),
        cases.residual(6, 4),
    ],
    "hidden size 1": lambda: [cases.bidirectional("LSTM", 1, 1), cases.dense(2, 1)],
    "saturating": lambda: [cases.bidirectional("GRU", 1, 16, gain=40.0), cases.dense(32, 1)],
}


def both_ways(name):
    return Model(tuple(MODELS[name]()))


@pytest.mark.parametrize("name", list(MODELS))
def test_both_directions_are_near_the_reference(name):
    model = both_ways(name)
    for x in (cases.stream(model, 200), reference.check_input(model, 7), cases.stream(model, 1)):
        row = judge("Model.run", lambda x: sequence.run(model, x), truth(model, x))
        assert row.verdict == "ok", row
    assert np.array_equal(model.run(x), sequence.run(model, x).output)


@pytest.mark.parametrize("name", list(MODELS))
def test_time_backwards_is_the_halves_exchanged(name):
    (layer, *_) = (k for k in both_ways(name).layers if isinstance(k, Bidirectional))
    turned = Bidirectional(layer.backward, layer.forward)
    x = cases.stream(Model((layer,)), 50)
    y, z = Model((layer,)).run(x), Model((turned,)).run(x[::-1])[::-1]
    assert np.array_equal(y, np.roll(z, layer.output_size // 2, axis=1))
    assert not np.array_equal(y, z)


@pytest.mark.parametrize("name", list(cases.MODELS))
def test_in_one_direction_it_is_a_stream_to_the_bit(name):
    model = cases.model(name)
    x, stream = cases.stream(model, 60), model.stream()
    result = sequence.run(model, x)
    assert np.array_equal(result.output, stream.run(x))
    assert len(result.state) == len(stream.state)
    assert all(map(np.array_equal, result.state, stream.state))


@pytest.mark.parametrize("form", [lambda x: x[:, 0], list, lambda x: x.astype(np.float64)])
def test_what_is_added_later_may_come_as_any_numbers(form):
    model = Model((cases.bidirectional("RNN", 1, 2), Residual(1, (0, 0, 0, 0)), cases.dense(4, 2)))
    x = cases.stream(model, 30)
    y = model.run(form(x))
    assert np.array_equal(y, model.run(x))
    row = judge("any numbers", lambda x: sequence.run(model, x), truth(model, x))
    assert row.verdict == "ok", row


def test_what_overflows_between_two_pieces_is_infinite_without_a_warning():
    zero, great = np.zeros(2, np.float32), np.full(2, 3e38, np.float32)
    layers = (Affine(zero[:1], great[:1]), cases.bidirectional("RNN", 1, 1), Affine(zero, great))
    model = Model((*layers, Residual(2, (0, 0))))
    assert np.isposinf(model.run([0.5])).all()


def test_each_run_begins_in_the_initial_state_and_leaves_its_input_alone():
    model = both_ways("learned start")
    x = cases.stream(model, 40)
    before = x.copy()
    first = model.run(x)
    model.run(x * 2)
    assert np.array_equal(model.run(x), first)
    assert np.array_equal(x, before)
    assert np.array_equal(model.run(np.asfortranarray(x)), first)
    assert np.array_equal(model.run(x.astype(np.float64)), first)


@pytest.mark.parametrize("name", ["between others", "LSTM alone"])
def test_no_samples_give_no_outputs_and_the_initial_state(name):
    model = both_ways(name)
    output, state = sequence.run(model, np.zeros((0, model.input_size), np.float32))
    assert (output.shape, output.dtype) == ((0, model.output_size), np.float32)
    assert [vector.tolist() for vector in state] == [s.initial.tolist() for s in model.states]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x[:, :2], r"expected shape \(time, 3\), found \(20, 2\)"),
        (lambda x: x[0], r"expected shape \(time, 3\), found \(3,\)"),
        (lambda x: np.where(x == x[4, 1], np.nan, x), r"nan at index \(4, 1\)"),
        (lambda x: np.where(x == x[4, 1], -np.inf, x), r"-inf at index \(4, 1\)"),
        (lambda x: x.astype(str), "convert it to float32"),
    ],
)
def test_bad_input_is_named(spoil, words):
    for model in (both_ways("LSTM alone"), both_ways("between others")):
        with pytest.raises(InputError, match=words):
            model.run(spoil(reference.check_input(model, 20)))


def test_no_live_stream_looks_ahead():
    with pytest.raises(ModelError, match=r"bidirectional layer.*samples to come.*Model\.run"):
        both_ways("between others").stream()


OURS = [road for road in ROADS if not road.libraries]


@pytest.mark.parametrize("name", ["LSTM, 2 layers", "between others"])
def test_verify_proves_it_by_the_whole_sequence_alone(name):
    report = fastlstm.verify(both_ways(name), steps=400, roads=OURS)
    assert report.ok, str(report)
    found = {row.road: row for row in report.rows}
    assert found.pop("whole sequence").verdict == "ok"
    assert [row.verdict for row in found.values()] == ["unsupported"] * 3
    assert all("bidirectional layer needs the whole sequence" in r.note for r in found.values())
    # Nothing is proved by roads that could not run.
    assert not fastlstm.verify(both_ways(name), steps=10, roads=OURS[:3]).ok


def test_a_wrong_half_is_caught():
    model = both_ways("LSTM alone")
    (layer,) = model.layers
    for twin in (
        Bidirectional(layer.backward, layer.forward),
        Bidirectional(layer.forward, layer.forward),
    ):
        wrong = Model((twin,))
        row = judge(
            "wrong", lambda x, m=wrong: sequence.run(m, x), truth(model, cases.stream(model, 30))
        )
        assert row.verdict == "wrong"


def test_the_session_takes_whole_sequences_only():
    model = cases.model("learned-start")
    session, stream = SequenceSession(model), StreamSession(model)
    x = cases.stream(model, 30)
    assert np.array_equal(session.run(x), stream.run(x))
    assert all(map(np.array_equal, session.state(), stream.state()))
    session.reset()
    assert [v.tolist() for v in session.state()] == [s.initial.tolist() for s in model.states]
    with pytest.raises(fastlstm.errors.UnsupportedError, match="no single samples"):
        session.step(x[0])
