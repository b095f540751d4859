"""Who the goals time: only what agrees with the reference, and that very session."""

import numpy as np
import pytest

import cases
from fastlstm.bench.goals.contenders import (
    OURS,
    SEQUENCE,
    STEP,
    check_truth,
    checked,
    our_contender,
    refusal,
    road_named,
)
from fastlstm.roads import Road, StreamSession


class Off(StreamSession):
    """A runtime that is a little wrong."""

    def step(self, x):
        return super().step(x) + np.float32(1e-4)


def broken(model):
    raise OSError("no such device")


@pytest.fixture(scope="module")
def model():
    return cases.stack("LSTM", 4, 1, inputs=1)


@pytest.mark.parametrize(
    ("road", "why"),
    [
        (Road("off", Off, by_step=True), "refused: differs from the reference by 1.00e-04, allow"),
        (Road("broken", broken, by_step=False), "failed: OSError: no such device"),
        (
            Road("absent", broken, by_step=True, libraries=("no_such_library",), extra="onnx"),
            "missing: no_such_library not installed: pip install 'fastlstm[onnx]'",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Road) else "",
)
def test_a_wrong_road_is_refused_with_why(model, road, why):
    contender, verdict = checked(road, model, check_truth(model))
    assert contender is None
    assert refusal(verdict).startswith(why)


def test_what_was_checked_is_what_is_timed(model):
    opened = []

    def open_session(of):
        opened.append(StreamSession(of))
        return opened[-1]

    true = check_truth(model)
    contender, verdict = checked(Road("another", open_session, by_step=False), model, true)
    (session,) = opened
    assert contender.call == session.stream.run
    assert verdict.max_abs_error < 1e-6


@pytest.mark.parametrize("mode", [STEP, SEQUENCE])
def test_ours_is_our_stream_by_its_fastest_call(model, mode):
    true = check_truth(model)
    contender, error = our_contender(model, mode, true)
    assert (contender.name, contender.mode) == (OURS[mode], mode)
    assert error < 1e-6
    contender.reset()
    if mode == SEQUENCE:
        y = contender.call(true.x)
    else:
        stream = contender.call.__self__
        y = np.array([(contender.call(x), stream.output.copy())[1] for x in true.x])
    assert np.abs(y - true.output).max() <= true.bound


def test_a_great_model_is_checked_over_fewer_steps(model, monkeypatch):
    assert len(check_truth(model).x) == 300
    monkeypatch.setattr(type(model), "num_parameters", 1 << 29)
    assert len(check_truth(model).x) == 20


def test_a_road_is_found_by_its_name():
    assert road_named("stream, by run").open is StreamSession
