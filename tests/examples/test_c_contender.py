"""examples/contender: the program in C against the reference, and what it refuses."""

import math
import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

import cases
from fastlstm.bench.contenders.contender import ALL
from fastlstm.bench.contenders.pipe import PipeSession, pipe_contender, round_trip_ns
from fastlstm.bench.contenders.pipe_process import ContenderError, ContenderProcess
from fastlstm.errors import UnsupportedError
from fastlstm.model import RNN, Model
from fastlstm.verify import truth

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "examples" / "contender"
PROTOCOL = ROOT / "docs" / "contender-protocol.md"
MODELS = (
    *("LSTM-1", "LSTM-17", "LSTM-64", "GRU-3", "GRU-33", "RNN-16", "RNN-130", "rnn-relu"),
    *("lstm-stack", "gru-stack", "no-bias", "gru-no-bias", "learned-start", "saturating"),
    *("gru-saturating", "scaled", "sigmoid-head", "dense-only", "affine-only", "wide-input"),
)


@pytest.fixture
def opened():
    sessions = []

    def open_session(c_contender, model):
        sessions.append(PipeSession(model, shlex.quote(str(c_contender))))
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()


def check_every_way(session, model):
    """By step, run and batch against the reference here, and by timed turns, which do it too."""
    x = cases.stream(model, 60, seed=2)
    true = truth(model, x)

    def check(found):
        np.testing.assert_allclose(found, true.output, rtol=5e-9, atol=true.bound)

    session.reset()
    check([session.step(sample) for sample in x])
    session.reset()
    check(np.concatenate([session.run(x[:1]), session.run(x[1:40]), session.run(x[40:])]))
    streams = session.batch(3)
    for _ in range(2):
        streams.reset()
        found = np.stack([streams.step(np.stack([a, a * 0, a])) for a in x])
        check(found[:, 0])
        check(found[:, 2])
        silent = truth(model, np.zeros_like(x))
        np.testing.assert_allclose(found[:, 1], silent.output, rtol=5e-9, atol=silent.bound)

    x = cases.stream(model, 48)
    assert len(session.steps(x, 70).calls_ns) == 70
    assert len(session.sequences(x[:20], 3).calls_ns) == 3
    assert len(session.scheduled(x.reshape(12, 4, -1), np.arange(12) * 500).calls_ns) == 12
    assert len(session.scheduled(x[:, None], np.zeros(48, np.int64)).calls_ns) == 48
    assert len(session.batches(x.reshape(12, 4, -1)).calls_ns) == 12


@pytest.mark.parametrize("name", MODELS)
def test_every_way_of_calling_against_the_reference(c_contender, opened, name):
    model = cases.model(name)
    check_every_way(opened(c_contender, model), model)


@pytest.mark.parametrize("name", ["lstm-stack", "gru-saturating", "learned-start"])
def test_without_fast_math(strict_c_contender, opened, name):
    model = cases.model(name)
    check_every_way(opened(strict_c_contender, model), model)


def test_what_it_says_of_itself(c_contender):
    contender = pipe_contender(shlex.quote(str(c_contender)))
    assert (contender.name, contender.precision, contender.can) == ("C example", "float32", ALL)
    assert contender.configuration.endswith(", -O3 -march=native -Werror -ffast-math")


def test_timed_outputs_are_those_of_the_samples(c_contender, opened):
    """What `last` and `sum` hold, worked out here: a session's own check is not trusted."""
    model = cases.model("LSTM-17")
    session = opened(c_contender, model)
    x = cases.stream(model, 5, seed=4)
    text = " ".join(f"{value:.9g}" for value in x.ravel())
    answer = session.process.ask(f"time-steps 3 7 5 {text}", values=20)
    fields = dict(part.split("=") for part in answer.split("\t")[1:])
    true = truth(model, x[np.arange(12) % 5])
    assert float(fields["last"]) == pytest.approx(true.output[-1, 0], abs=true.bound)
    assert float(fields["sum"]) == pytest.approx(true.output.sum(), abs=12 * true.bound)
    assert len(fields["calls"].split()) == 7


def test_a_call_that_waits_is_timed_from_when_it_was_due(c_contender, opened):
    """All are due at once, so each is done later than the one before."""
    late = opened(c_contender, cases.model("LSTM-64")).scheduled(
        np.ones((50, 1, 2), np.float32), np.zeros(50, np.int64)
    )
    assert (np.diff(late.calls_ns) > 0).all()


def test_the_round_trip_is_measured(c_contender, opened):
    times = round_trip_ns(opened(c_contender, cases.model("affine-only")), 20)
    assert len(times) == 20
    assert min(times) > 0


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("lstm-projected-5-9", "layer 0: an LSTM with a projection"),
        ("lstm-peephole-8", "layer 0: an LSTM with peepholes"),
        ("gru-before-8", "layer 0: a GRU with its reset gate before the product"),
        ("softmax-two", 'layer 1: the activation "softmax"'),
        ("connected-3", 'layer 0: a layer of kind "Difference"'),
        ("norm-of-a-constant", 'layer 1: a layer of kind "LayerNorm"'),
        ("residual-24", 'layer 2: a layer of kind "Residual"'),
        ("bidirectional", 'layer 0: a layer of kind "Bidirectional"'),
    ],
)
def test_layers_that_it_lacks(c_contender, model, reason):
    made = (
        Model((cases.bidirectional("GRU", 1, 4),))
        if model == "bidirectional"
        else cases.model(model)
    )
    with pytest.raises(UnsupportedError) as raised:
        PipeSession(made, shlex.quote(str(c_contender)))
    assert str(raised.value).endswith(f": {reason}")


@pytest.mark.parametrize(
    ("request_line", "reason"),
    [
        ("step 1", "expected finite values"),
        ("step 1 2 3", "expected finite values"),
        ("step 1 nan", "expected finite values"),
        ("step one two", "expected finite values"),
        ("run 0", "expected run T"),
        ("run 2 1 2 3", "expected finite values"),
        ("run 9999999 1 2", "expected finite values"),
        ("begin", "expected begin N"),
        ("begin -1", "expected begin N"),
        ("batch 1 2", "expected begin N before batch"),
        ("time-steps 1 1 2 1 2 3", "expected WARM, two counts"),
        ("time-steps 1 1 99999999999999999999 1", "expected WARM, two counts"),
        ("time-sequences 1 0 1 1 2", "expected WARM, two counts"),
        ("time-scheduled 0 2 1 5 4 1 2 3 4", "expected WARM, two counts"),
        ("time-scheduled 0 2 1 0", "expected WARM, two counts"),
        ("time-batches 0 9999999 9999999 1", "expected WARM, two counts"),
        ("fly", "unknown request fly"),
        ("", "unknown request"),
        ("hello 2", "speaks version 1"),
    ],
)
def test_requests_that_make_no_sense(c_contender, opened, request_line, reason):
    model = cases.model("LSTM-3")
    session = opened(c_contender, model)
    with pytest.raises(ContenderError, match=reason):
        session.process.ask(request_line)
    # Nothing has changed.
    x = cases.stream(model, 4)
    true = truth(model, x)
    np.testing.assert_allclose(session.run(x), true.output, rtol=5e-9, atol=true.bound)


def test_requests_before_a_model(c_contender):
    process = ContenderProcess(shlex.quote(str(c_contender)))
    for request in ("reset", "step 1", "begin 2", "time-steps 1 1 1 1"):
        with pytest.raises(ContenderError, match="expected load PATH before"):
            process.ask(request)
    process.close()


def test_the_dialogue_of_the_protocol(c_contender, tmp_path):
    """docs/contender-protocol.md, line by line; the values again from their formula."""
    text = PROTOCOL.read_text("utf-8")
    lines = [line for line in text.splitlines() if line[:2] in ("> ", "< ")]
    requests, answers = (
        [line[2:] for line in lines if line.startswith(mark)] for mark in ("> ", "< ")
    )
    assert len(requests) == len(answers) > 15
    path = tmp_path / "rnn.safetensors"
    weights = np.array([[1]], np.float32), np.array([[0.5]], np.float32)
    Model((RNN(*weights),)).save(path)
    done = subprocess.run(
        [c_contender],
        input="".join(f"{r.replace('/tmp/rnn.safetensors', str(path))}\n" for r in requests),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = done.stdout.splitlines()
    assert [words(line) for line in found] == [words(line) for line in answers]

    h = [0.0]
    for x in (1, 0, 1, 0):
        h.append(math.tanh(x + 0.5 * h[-1]))
    one, two, three, four = h[1:]
    for request, expected in {
        "run 2 1 0": [one, two],
        "time-steps 1 2 2 1 0": [four, one + two + three + four],
        "time-batches 1 2 2 1 -1 0 0": [two, -two, one + two, -one - two],
    }.items():
        answer = answers[requests.index(request)]
        values = [float(word) for word in answer.replace("sum=", "").split() if "." in word]
        assert values == pytest.approx(expected, abs=1e-6)


def words(line):
    """A line without what differs from machine to machine: times, and what `hello` says."""
    if "\tprotocol=" in line:
        return [field.partition("=")[0] for field in line.split("\t")]
    fields = line.split("\t")
    for k, field in enumerate(fields):
        name, equals, value = field.partition("=")
        if equals and name in ("total", "calls"):
            fields[k] = f"{name}={len(value.split())}"
    return fields


def test_the_readme_names_what_is_there():
    text = (SOURCES / "README.md").read_text("utf-8")
    for name in os.listdir(SOURCES):
        if name.endswith(".c"):
            assert f"`{name}`" in text
    assert "--contender ./examples/contender/contender" in text
