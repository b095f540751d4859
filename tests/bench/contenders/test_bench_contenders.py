"""Every contender computes what the reference computes, in each way that the bench calls it."""

import functools
import importlib.util
import subprocess
import sys

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.bench.contenders.contender import BATCH, RUN, STEP
from fastlstm.bench.contenders.contender_list import CONTENDERS, OUR_NAMES, OURS, named
from fastlstm.errors import InputError, UnsupportedError
from fastlstm.model import Model
from fastlstm.verify import REDUCED, truth
from foreign_runtimes import need

STEPS, CUT, STREAMS, STREAM_STEPS = 60, 23, 3, 20
MODELS = {
    "LSTM": cases.MODELS["LSTM-17"],
    "GRU": cases.MODELS["GRU-16"],
    "RNN": cases.MODELS["RNN-8"],
    "stack": lambda: Model((cases.affine(2), *cases.stack("LSTM", 9, 2).layers)),
    "start": lambda: Model(
        (
            cases.recurrent("LSTM", 1, 12, initial=True),
            cases.recurrent("GRU", 12, 9, initial=True),
            cases.dense(9, 2, "tanh"),
        )
    ),
}
# Of what is written here and nowhere else, every layer and every setting of one.
LAYERS = (
    "lstm-everything",
    "gru-before-8",
    "gru-no-bias",
    "no-bias",
    "rnn-relu",
    "gru-stack",
    "mixed",
    "connected-3",
    "residual-nested",
    "residual-columns",
    "lstm-projected-5-9",
    "softmax-two",
    "lstm-bare",
    "dense-only",
)
REFUSED = {("OpenCV dnn", "RNN")}


QUICK = [contender for contender in CONTENDERS if not contender.builds]


# Two threads that wait for each other on a busy machine take seconds for what takes milliseconds.
@pytest.fixture(autouse=True)
def _one_thread():
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


def those_that(ability):
    return [one for one in QUICK if ability in one.can]


def names(contenders):
    return {"argvalues": contenders, "ids": [one.name for one in contenders]}


@functools.cache
def model_named(name):
    return MODELS[name]()


@functools.cache
def opened(contender, name):
    """One session for all tests of a model: each begins with a reset."""
    return contender.open(model_named(name))


def session_of(contender, name):
    need(contender.missing())
    if (contender.name, name) in REFUSED:
        with pytest.raises(UnsupportedError, match=contender.name):
            opened(contender, name)
        pytest.skip(f"{contender.name} has no such layer, and says so")
    return opened(contender, name)


def stepped(session, x):
    return np.stack([np.array(session.step(sample)) for sample in x])


def assert_right(found, true, contender):
    assert found.shape == true.output.shape
    difference = found.astype(np.float64) - true.output
    if contender.precision in REDUCED:
        relative = np.linalg.norm(difference) / np.linalg.norm(true.output)
        assert relative <= REDUCED[contender.precision]
        # It is not the float32 network under another name.
        assert np.abs(difference).max() > true.bound
    else:
        assert np.abs(difference).max() <= true.bound


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("contender", **names(those_that(STEP)))
def test_steps_are_the_reference_s_and_begin_anew_after_a_reset(contender, model):
    session = session_of(contender, model)
    true = truth(model_named(model), reference.check_input(model_named(model), STEPS))
    session.reset()
    first = stepped(session, true.x)
    assert_right(first, true, contender)
    session.reset()
    assert np.array_equal(stepped(session, true.x), first)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("contender", **names(those_that(STEP)))
def test_what_is_timed_moves_the_state_as_a_step_does(contender, model):
    session = session_of(contender, model)
    x = reference.check_input(model_named(model), STEPS)
    session.reset()
    expected = stepped(session, x)
    session.reset()
    timed = getattr(session, "timed_step", session.step)
    for sample in x[:CUT]:
        timed(sample)
    assert np.array_equal(stepped(session, x[CUT:]), expected[CUT:])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("contender", **names(those_that(RUN)))
def test_blocks_carry_the_state_from_one_to_the_next_and_to_steps(contender, model):
    session = session_of(contender, model)
    true = truth(model_named(model), reference.check_input(model_named(model), STEPS))
    session.reset()
    pieces = [np.array(session.run(piece)) for piece in (true.x[:CUT], true.x[CUT:])]
    assert_right(np.concatenate(pieces), true, contender)
    session.reset()
    mixed = [np.array(session.run(true.x[:CUT])), stepped(session, true.x[CUT : CUT + 7])]
    mixed.append(np.array(session.run(true.x[CUT + 7 :])))
    assert_right(np.concatenate(mixed), true, contender)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("contender", **names(those_that(BATCH)))
def test_streams_keep_apart(contender, model):
    session, of = session_of(contender, model), model_named(model)
    true = [truth(of, reference.check_input(of, STREAM_STEPS, seed)) for seed in range(STREAMS)]
    x = np.stack([one.x for one in true], axis=1)
    streams = session.batch(STREAMS)
    streams.reset()
    first = np.stack([np.array(streams.step(samples)) for samples in x])
    for k, one in enumerate(true):
        assert_right(first[:, k], one, contender)
    streams.reset()
    assert np.array_equal(np.stack([np.array(streams.step(samples)) for samples in x]), first)


@pytest.mark.parametrize("contender", **names(QUICK))
def test_a_bidirectional_model_runs_whole_or_is_refused(contender):
    need(contender.missing())
    model = Model((cases.bidirectional("LSTM", 2, 9), cases.dense(18, 1)))
    true = truth(model, reference.check_input(model, STEPS))
    if RUN not in contender.can:
        with pytest.raises(UnsupportedError):
            contender.open(model).batch(2)
        return
    session = contender.open(model)
    for _ in range(2):
        session.reset()
        assert_right(np.array(session.run(true.x)), true, contender)
    with pytest.raises(UnsupportedError):
        session.step(true.x[0])
    with pytest.raises(UnsupportedError):
        session.batch(2)


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("name", ["torch eager", "torch in place", "TorchScript", "OpenVINO"])
def test_every_layer_of_what_is_set_up_here(name, case):
    contender, model = named(name), cases.model(case)
    need(contender.missing())
    true = truth(model, reference.check_input(model, STEPS))
    assert_right(stepped(contender.open(model), true.x), true, contender)


@pytest.mark.parametrize("case", [name for name in LAYERS if name in ("no-bias", "gru-stack")])
def test_what_is_quantised_is_right_before_it_is(case):
    need(named("torch int8").missing())
    from fastlstm.bench.contenders.torch_chain import ChainSession
    from fastlstm.bench.contenders.torch_int8 import int8_chain

    model = cases.model(case)
    session = ChainSession("float", model, int8_chain(model, lambda modules: modules))
    true = truth(model, reference.check_input(model, STEPS))
    assert_right(stepped(session, true.x), true, named("torch eager"))


def test_int8_of_a_wrong_network_is_not_opened():
    need(named("torch int8").missing())
    import torch

    from fastlstm.bench.contenders.torch_int8 import _check_unrounded

    def swap(modules):
        with torch.no_grad():
            weight = modules[0].weight_hh_l0
            i, f, g, o = weight.clone().chunk(4)
            weight.copy_(torch.cat([f, i, g, o]))
        return list(modules)

    model = cases.model("no-bias")
    _check_unrounded(model)
    with pytest.raises(ArithmeticError, match="before its weights are rounded: refused: differs"):
        _check_unrounded(model, swap)


def test_what_torch_cannot_quantise_is_named():
    int8 = named("torch int8")
    need(int8.missing())
    with pytest.raises(UnsupportedError, match=r"layer 0 \(LSTM\) has a projection, peepholes"):
        int8.open(cases.model("lstm-peephole-8"))
    with pytest.raises(UnsupportedError, match="found Affine: nothing to quantise"):
        int8.open(cases.model("affine-only"))


def test_opencv_is_not_asked_for_peepholes():
    need(named("OpenCV dnn").missing())
    with pytest.raises(UnsupportedError, match=r"layer 0 \(LSTM\) has peepholes"):
        named("OpenCV dnn").open(cases.model("lstm-peephole-8"))


def test_layers_that_torch_holds_as_one_are_one_call():
    need(named("torch eager").missing())
    from fastlstm.bench.contenders.torch_chain import float_chain

    assert len(float_chain(cases.stack("GRU", 8, 3)).stages) == 2
    assert len(float_chain(cases.model("lstm-stack")).stages) == 3  # of different sizes


@pytest.mark.parametrize("contender", **names([one for one in CONTENDERS if one.builds]))
def test_what_compiles_computes_the_same(contender):
    need(contender.missing())
    import torch._dynamo

    model = Model((cases.recurrent("LSTM", 1, 4, initial=True), cases.dense(4, 1)))
    torch._dynamo.utils.counters.clear()
    session = contender.open(model)
    assert not torch._dynamo.utils.counters["graph_break"]
    true = truth(model, reference.check_input(model, STEPS))
    first = stepped(session, true.x)
    assert_right(first, true, contender)
    session.reset()
    for sample in true.x[:CUT]:
        session.timed_step(sample)
    assert np.array_equal(session.run(true.x[CUT:]), first[CUT:])
    with pytest.raises(UnsupportedError, match=contender.name):
        session.batch(2)


def test_the_list_imports_no_runtime_but_ours():
    code = (
        "import sys, fastlstm.bench.contenders.contender_list\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'openvino', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_list():
    found = [contender.name for contender in CONTENDERS]
    assert len(set(found)) == len(found)
    for ability, name in OURS.items():
        assert ability in named(name).can
        assert name in OUR_NAMES
    assert set(OUR_NAMES) == {name for name in found if name.startswith("fastlstm")}
    assert {c.name: c.precision for c in CONTENDERS if c.precision != "float32"} == {
        "NumPy reference": "float64",
        "torch int8": "int8",
    }
    with pytest.raises(InputError, match=r"'fastlstm push'.*'OpenCV dnn'.*found 'torch'"):
        named("torch")


@pytest.mark.parametrize("contender", **names(CONTENDERS))
def test_what_is_missing_is_named(contender, monkeypatch):
    if not contender.missing():
        assert any(digit in contender.version() for digit in "0123456789")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ours = contender.name.startswith("fastlstm") or contender.name == "NumPy reference"
    assert ("pip install 'fastlstm[" in contender.missing()) == (not ours)
