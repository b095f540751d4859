"""The bench: wrong contenders are refused, rounds are interleaved, figures come from the clock."""

import json

import numpy as np
import pytest

import cases
from fastlstm import bench
from fastlstm.bench.contenders import SEQUENCE, STEP, Contender
from fastlstm.bench.timing import SEQUENCE_CALLS, SINGLE_CALLS, Times, measure, ratios
from fastlstm.roads import ROADS, Road, StreamSession


class Clock:
    """A clock that only moves when a contender says how long it took."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


def contender(name, mode, clock, cost, log):
    def call(x):
        log.append(name)
        clock.now += cost() if callable(cost) else cost

    return Contender(name, mode, call, lambda: None)


def test_times_and_ratios_come_from_the_clock():
    clock, log = Clock(), []
    ours = contender("ours", STEP, clock, 10, log)
    theirs = contender("theirs", STEP, clock, 25, log)
    times = measure([ours, theirs], np.zeros((400, 1)), 5, clock=clock)
    assert times["ours"].rounds == [10] * 5
    assert times["ours"].median_ns == 10
    assert times["theirs"].p99_ns == 25
    assert len(times["theirs"].calls) == 5 * SINGLE_CALLS
    assert ratios(times["theirs"], times["ours"]) == [2.5] * 5


def test_a_sequence_is_timed_per_step():
    clock = Clock()
    whole = contender("whole", SEQUENCE, clock, 1000, [])
    assert measure([whole], np.zeros((50, 1)), 3, clock=clock)["whole"].rounds == [20] * 3


def test_the_tail_shows_a_stall_that_the_median_hides():
    clock = Clock()
    calls = iter(range(10**9))
    stalling = contender("stalling", STEP, clock, lambda: 5000 if next(calls) % 50 == 0 else 10, [])
    times = measure([stalling], np.zeros((500, 1)), 5, clock=clock)["stalling"]
    assert np.median(times.calls) == 10
    assert times.p99_ns == 5000


def test_rounds_are_interleaved_and_shuffled():
    clock, log = Clock(), []
    names = "abcd"
    group = [contender(name, SEQUENCE, clock, 1, log) for name in names]
    measure(group, np.zeros((5, 1)), 20, clock=clock)
    # Each is called several times in its turn; the first turn of all is the warm-up.
    turns = log[::SEQUENCE_CALLS]
    assert log == [name for name in turns for _ in range(SEQUENCE_CALLS)]
    rounds = ["".join(turns[k : k + 4]) for k in range(4, len(turns), 4)]
    assert len(rounds) == 20
    assert all(sorted(order) == list(names) for order in rounds)
    assert len(set(rounds)) > 5


def test_ratios_are_taken_within_a_round():
    # The machine slows down tenfold halfway; the ratio does not notice.
    ours, theirs = Times([10, 10, 100]), Times([30, 30, 300])
    assert ratios(theirs, ours) == [3, 3, 3]


class Off(StreamSession):
    """A runtime that is a little wrong."""

    def step(self, x):
        return super().step(x) + np.float32(1e-4)


def broken(model):
    raise OSError("no such device")


OURS = [road for road in ROADS if not road.libraries]


def test_a_wrong_contender_is_refused_with_its_error():
    roads = [
        *OURS,
        Road("off", Off, by_step=True),
        Road("broken", broken, by_step=False),
        Road("absent", broken, by_step=True, libraries=("no_such_library",), extra="onnx"),
    ]
    model = cases.stack("LSTM", 4, 1, inputs=1)
    result = bench.compare({"small": model}, rounds=2, steps=20, roads=roads)
    rows = {row.contender: row for row in result.rows}
    assert rows["off"].median_ns is None
    assert "refused: differs from the reference by 1.00e-04" in rows["off"].note
    assert "no such device" in rows["broken"].note
    assert "fastlstm[onnx]" in rows["absent"].note
    for name in ("stream, by push", "stream, by run"):
        assert rows[name].ratio == 1
        assert rows[name].median_ns > 0
        assert rows[name].error < 1e-6
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["schema"] == "fastlstm-bench-1"
    assert document["machine"]["processor"]
    assert len(document["rows"]) == len(roads)


def test_a_road_is_opened_once_to_be_checked_and_timed():
    opened = []

    def open_session(model):
        opened.append(model)
        return StreamSession(model)

    model = cases.stack("LSTM", 4, 1, inputs=1)
    roads = [*OURS, Road("another", open_session, by_step=False)]
    result = bench.compare({"small": model}, rounds=2, steps=20, roads=roads)
    assert opened == [model]
    (row,) = (row for row in result.rows if row.contender == "another")
    assert row.median_ns > 0
    assert row.error < 1e-6


def test_without_our_own_stream_there_are_no_ratios():
    model = cases.stack("LSTM", 4, 1)
    result = bench.compare({"m": model}, rounds=1, steps=5, roads=[OURS[0]])
    assert [row.note for row in result.rows] == ["not timed without stream, by push"]


def test_onnx_runtime_is_timed_beside_us():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    roads = [*OURS, *(road for road in ROADS if "onnxruntime" in road.libraries)]
    result = bench.compare(bench.lstm_models([8]), rounds=2, steps=50, roads=roads)
    assert {row.note for row in result.rows} == {""}
    assert all(row.ratio > 0 for row in result.rows)
