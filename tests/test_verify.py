"""verify: a right road passes, every kind of wrong one is caught, and the report says which."""

import json

import numpy as np
import pytest

import cases
import fastlstm
from fastlstm import reference
from fastlstm.errors import UnsupportedError
from fastlstm.roads import ROADS, Road, StreamSession
from fastlstm.verify import FACTOR, FLOOR, PART, YARDSTICK_STEPS, Yardstick, judge, truth


@pytest.fixture(scope="module")
def model():
    return cases.stack("LSTM", 8, 2)


@pytest.fixture(scope="module")
def true(model):
    return truth(model, reference.check_input(model, 200))


def run_with(model, change):
    stream = model.stream()

    def run(x):
        output, state = stream.run(x), list(stream.state)
        return change(output, state)

    return run


def test_the_bound_is_what_the_table_says(model, true):
    single = reference.run(model, true.x, np.float32)
    exact = reference.run(model, true.x)
    assert np.array_equal(true.output, exact)
    assert true.bound == FACTOR * np.abs(single - exact).max() + FLOOR


def test_a_right_road_is_ok(model, true):
    row = judge("ours", run_with(model, lambda y, s: (y, s)), true)
    assert row.verdict == "ok"
    assert 0 < row.max_abs_error <= row.bound
    assert 0 < row.relative_l2 < 1e-6
    assert row.steps == 200


def test_the_yardstick_is_the_greatest_bound_of_many_steps_and_ends(model):
    x = reference.check_input(model, YARDSTICK_STEPS)
    exact, single = reference.run(model, x), reference.run(model, x, np.float32)
    bound, state_bound = Yardstick(model).bounds
    assert bound == FACTOR * np.abs(single - exact).max() + FLOOR
    parts = (x, *np.split(x, YARDSTICK_STEPS // PART))
    assert state_bound == max(truth(model, part).state_bound for part in parts)


def test_a_road_beyond_the_bound_of_a_tame_stream_is_held_to_many(model):
    tame = truth(model, np.zeros((3, model.input_size), np.float32))
    bound, _ = Yardstick(model).bounds
    assert tame.bound < bound

    def off(by):
        return run_with(model, lambda y, s: (y + np.float32(by), s))

    between = (tame.bound + bound) / 2
    assert judge("ours", off(between), tame).verdict == "wrong"
    row = judge("ours", off(between), tame, Yardstick(model))
    assert (row.verdict, row.bound) == ("ok", bound)
    assert judge("ours", off(2 * bound), tame, Yardstick(model)).verdict == "wrong"


def test_the_yardstick_is_not_asked_for_while_the_stream_suffices(model, true):
    class Costly(Yardstick):
        @property
        def bounds(self):
            raise AssertionError("not needed")

    assert judge("ours", run_with(model, lambda y, s: (y, s)), true, Costly(model)).verdict == "ok"


def test_nothing_is_proved_where_float32_overflows_or_no_step_is_taken():
    huge = np.full((1, 1), 3e38, np.float32)
    model = fastlstm.Model((fastlstm.Dense(huge), fastlstm.Dense(huge)))
    report = fastlstm.verify(model, steps=5, roads=[Road("ours", StreamSession, by_step=False)])
    assert [row.verdict for row in report.rows] == ["wrong"]
    assert report.rows[0].note == "the network overflows float32 on this stream"
    for steps in (0, -1):
        with pytest.raises(ValueError, match=f"at least one step, found {steps}"):
            fastlstm.verify(model, steps=steps)


def late(y, s):
    y[-1] += 1e-5
    return y, s


def lost(y, s):
    y[100] = np.nan
    return y, s


def forgotten(y, s):
    s[1] = np.zeros_like(s[1])
    return y, s


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (late, ""),
        (lost, ""),
        (forgotten, ""),
        (lambda y, s: (y[:-1], s), "(199, 1)"),
        (lambda y, s: (y, s[:-1]), "3"),
        (lambda y, s: (y, [np.zeros(1), *s[1:]]), ""),
    ],
)
def test_a_wrong_road_is_caught(model, true, change, words):
    row = judge("theirs", run_with(model, change), true)
    assert row.verdict == "wrong"
    assert words in row.note


def test_the_report_lists_what_is_missing_and_what_failed(model):
    def fail(model):
        raise RuntimeError("no such runtime\nsecond line")

    roads = (
        Road("ours", StreamSession, by_step=False),
        Road("absent", StreamSession, by_step=True, libraries=("no_such_library",), extra="onnx"),
        Road("failing", fail, by_step=True),
    )
    seen = []
    report = fastlstm.verify(model, steps=50, roads=roads, progress=seen.append)
    assert seen == ["ours", "absent", "failing"]
    assert [row.verdict for row in report.rows] == ["ok", "missing", "failed"]
    assert "pip install 'fastlstm[onnx]'" in report.rows[1].note
    assert report.rows[2].note == "RuntimeError: no such runtime"
    assert not report.ok
    assert fastlstm.verify(model, steps=50, roads=roads[:2]).ok
    assert not fastlstm.verify(model, steps=50, roads=roads[1:2]).ok
    table = str(report).splitlines()
    assert table[0].startswith("road")
    assert table[1].startswith("ours")
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["rows"][1]["bound"] is None


def test_a_road_that_cannot_express_the_model_is_listed_and_is_no_failure(model):
    def refuse(model):
        raise UnsupportedError("this target has\nno peepholes")

    class Late(StreamSession):
        def run(self, x):
            return refuse(x)

    roads = (
        Road("ours", StreamSession, by_step=False),
        Road("when opened", refuse, by_step=True),
        Road("when run", Late, by_step=False),
    )
    report = fastlstm.verify(model, steps=50, roads=roads)
    assert [row.verdict for row in report.rows] == ["ok", "unsupported", "unsupported"]
    assert {row.note for row in report.rows[1:]} == {"this target has no peepholes"}
    assert report.ok
    assert not fastlstm.verify(model, steps=50, roads=roads[1:]).ok
    assert str(report).splitlines()[2].endswith("unsupported: this target has no peepholes")


# torch.compile and AOTInductor take tens of seconds; tests/export runs them on models of its own.
QUICK = [road for road in ROADS if not road.compiler]


@pytest.mark.parametrize("name", ["mixed", "learned-start", "scaled", "gru-stack", "rnn-relu"])
def test_every_road_of_this_machine_is_right(name):
    report = fastlstm.verify(cases.model(name), steps=400, roads=QUICK)
    assert report.ok, str(report)


def test_roads_that_take_whole_sequences_take_both_directions():
    model = fastlstm.Model((cases.bidirectional("LSTM", 2, 6), cases.dense(12, 1)))
    report = fastlstm.verify(model, steps=100, roads=QUICK)
    assert report.ok, str(report)
    for road, row in zip(QUICK, report.rows, strict=True):
        live = road.by_step or road.open is StreamSession
        assert row.verdict == ("missing" if road.missing() else "unsupported" if live else "ok")


def test_every_road_says_what_it_needs(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for road in ROADS:
        assert bool(road.missing()) == bool(road.libraries)
    monkeypatch.undo()
    monkeypatch.setattr("shutil.which", lambda name: None)
    compiled = next(road for road in ROADS if road.compiler)
    assert "install g++" in compiled.missing()
