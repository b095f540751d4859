"""Only the reference's numbers are timed: wrong contenders are refused with their error."""

import dataclasses

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.bench.contenders.contender import BATCH, RUN, STEP, STEPS_IN_A_BLOCK, Contender
from fastlstm.bench.models import plain_model
from fastlstm.bench.timing.admission import STREAM_STEPS, Judge, open_session
from fastlstm.errors import UnsupportedError

MODEL = cases.stack("LSTM", 8, 2, inputs=1)


class Ours:
    """Our streams under the bench's protocol, a little wrong where a test wants it."""

    def __init__(self, model, off=0.0, forgets=False, mixes=False):
        self.model, self.off, self.forgets, self.mixes = model, off, forgets, mixes
        self.reset()

    def reset(self):
        self.stream = self.model.stream()

    def step(self, x):
        if self.forgets:
            self.reset()
        return self.stream.step(x) + np.float32(self.off)

    def run(self, x):
        return self.stream.run(x) + np.float32(self.off)

    def batch(self, streams):
        sessions = [Ours(self.model) for _ in range(streams)]

        class Many:
            def reset(_):
                for session in sessions:
                    session.reset()

            def step(_, x):
                order = sessions[::-1] if self.mixes and _.turn() else sessions
                return np.stack([s.step(row) for s, row in zip(order, x, strict=True)])

            calls = 0

            def turn(_):
                _.calls += 1
                return _.calls == 5

        return Many()

    def close(self):
        pass


def contender(open_session=Ours, **settings):
    return Contender("rival", "plain", open_session, lambda: "", lambda: "1", **settings)


def verdict(need, streams=1, model=MODEL, who=None, **faults):
    who = who or contender()
    return Judge(model).check(Ours(model, **faults), who, need, streams)


@pytest.mark.parametrize(("need", "streams"), [(STEP, 1), (RUN, 1), (BATCH, 3), (BATCH, 16)])
def test_the_reference_s_numbers_are_admitted_with_their_error(need, streams):
    found = verdict(need, streams)
    assert found.reason == ""
    assert 0 < found.error < 1e-6 <= found.bound


def test_the_error_is_the_greatest_of_all_steps():
    x = Judge(MODEL).x
    exact = reference.run(MODEL, x)
    expected = np.abs(MODEL.stream().run(x) - exact).max()
    assert verdict(RUN).error == pytest.approx(expected, rel=1e-9)
    assert len(x) == 300


@pytest.mark.parametrize("need", [STEP, RUN])
def test_a_wrong_contender_is_refused_with_its_error(need):
    found = verdict(need, off=1e-4)
    assert found.reason.startswith("refused: differs from the reference by 1.00e-04, allowed ")
    assert found.error == pytest.approx(1e-4, rel=0.01)


def test_a_lost_state_and_mixed_streams_are_refused():
    assert verdict(STEP, forgets=True).reason.startswith("refused: differs")
    assert verdict(BATCH, 4, mixes=True).reason.startswith("refused: differs")


def test_fewer_bits_may_be_off_by_so_much_and_no_more():
    who = contender(precision="int8")
    norm = np.linalg.norm(reference.run(MODEL, Judge(MODEL).x)) / 300**0.5
    near, far = 0.049 * norm, 0.051 * norm
    found = verdict(STEP, who=who, off=near)
    assert (found.reason, found.bound) == ("", None)
    assert found.error == pytest.approx(near, rel=1e-3)
    refused = verdict(STEP, who=who, off=far)
    assert refused.reason.startswith("refused: its relative L2 error is 5.10e-02, and weights of")
    assert verdict(STEP, off=near).reason.startswith("refused: differs")


def test_what_is_not_finite_or_of_another_shape_is_refused():
    assert verdict(RUN, off=np.nan).reason.startswith("refused: differs from the reference by nan")
    assert verdict(RUN, off=np.inf).error is None
    session = Ours(MODEL)
    session.run = lambda x: x[:-1]
    found = Judge(MODEL).check(session, contender(), RUN)
    assert found.reason == "refused: expected outputs (300, 1), found (299, 1)"


def test_what_a_contender_cannot_do_is_no_failure():
    who = contender(can=frozenset((STEP,)))
    assert Judge(MODEL).check(Ours(MODEL), who, RUN).reason == (
        "unsupported: it takes single steps only"
    )
    assert "one stream at a time" in Judge(MODEL).check(Ours(MODEL), who, BATCH, 2).reason


def test_steps_in_a_block_are_checked_as_they_are_called():
    who = contender(can=frozenset((STEP,)))
    assert Judge(MODEL).check(Ours(MODEL), who, STEPS_IN_A_BLOCK).reason == ""
    session = Ours(MODEL)
    session.run = lambda x: session.stream.run(x) + np.float32(1e-3)
    judge = Judge(MODEL)
    assert judge.check(session, who, STEP).reason == ""
    assert judge.check(session, who, STEPS_IN_A_BLOCK).reason.startswith("refused: differs")


def test_what_a_runtime_raises_is_its_reason():
    session = Ours(MODEL)

    def breaks(x):
        raise OSError("device lost\nand more")

    session.step = breaks
    found = Judge(MODEL).check(session, contender(), STEP)
    assert found.reason == "failed: OSError: device lost"

    def refuses(model):
        raise UnsupportedError("layer 0 (LSTM):\n no peepholes here")

    assert open_session(contender(refuses), MODEL) == (
        None,
        "unsupported: layer 0 (LSTM): no peepholes here",
    )
    assert open_session(contender(breaks), MODEL) == (None, "failed: OSError: device lost")
    absent = dataclasses.replace(contender(), missing=lambda: "x not installed")
    assert open_session(absent, MODEL) == (None, "missing: x not installed")
    session, reason = open_session(contender(), MODEL)
    assert (type(session), reason) == (Ours, "")


def test_a_great_model_is_checked_over_fewer_steps():
    great = plain_model("LSTM", 1024, inputs=1024, layers=3)
    assert great.num_parameters > 25_000_000
    assert len(Judge(great).x) == 42
    judge = Judge(MODEL)
    x, true = judge.many(16)
    assert x.shape == (16, 18, 1)
    assert judge.many(3)[0].shape == (3, STREAM_STEPS, 1)
    # Each stream begins in the initial state and has samples of its own.
    assert np.array_equal(true.output[:18], reference.run(MODEL, x[0]))
    assert np.array_equal(true.output[-18:], reference.run(MODEL, x[15]))
    assert not np.array_equal(x[0], x[1])
