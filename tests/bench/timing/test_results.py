"""Rows from turns: medians, ratios within a round, deadlines missed, times real time."""

import numpy as np
import pytest

from fastlstm.bench.timing.admission import Verdict
from fastlstm.bench.timing.driver import Taken
from fastlstm.bench.timing.modes import CLOSED, PERIODIC, POISSON, SEQUENCE, Mode
from fastlstm.bench.timing.results import row_of
from fastlstm.bench.timing.rounds import Taking

KEY = ("model", "mode")
GOOD = Verdict(1e-8, 1e-6)
AUDIO = Mode(PERIODIC, calls=100, block=64, rate_hz=48_000)
PERIOD = 64 / 48_000 * 1e9


def taking(step_ns, calls=(7,)):
    return Taking({k: Taken(ns, np.array(calls, np.int64)) for k, ns in enumerate(step_ns)})


def row(taken, ours=None, mode=None, verdict=GOOD, **settings):
    return row_of(KEY, "rival", mode or Mode(CLOSED), verdict, taken, ours, **settings)


def test_medians_and_intervals_of_the_rounds():
    found = row(taking([9.0, 1, 8, 2, 7, 3, 6, 4, 5, 10]))
    assert (found.ns.value, found.ns.low, found.ns.high) == (5.5, 2, 9)
    assert found.rounds_ns == (9, 1, 8, 2, 7, 3, 6, 4, 5, 10)
    assert (found.error, found.bound, found.note) == (1e-8, 1e-6, "")
    assert (found.ratio, found.deadline, found.times_real_time) == (None, None, None)


def test_ratios_are_taken_within_a_round():
    # The machine slows down tenfold halfway; the ratio does not notice.
    ours = taking([10.0] * 5 + [100.0] * 5)
    found = row(taking([30.0] * 5 + [300.0] * 5), ours)
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == (3, 3, 3)
    assert found.ns.low == 30
    assert found.ns.high == 300


def test_a_contender_of_fewer_rounds_is_compared_in_those():
    found = row(taking([20.0, 20.0]), taking([10.0, 5.0, 1.0, 1.0]))
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == (3, 2, 4)


def test_the_tail_shows_a_stall_that_the_median_hides():
    calls = [100] * 980 + [5000] * 20
    found = row(taking([100.0] * 4, calls))
    by_percent = {p.percent: p.ns for p in found.latency.percentiles}
    assert by_percent == {50: 100, 90: 100, 99: 5000, 99.9: 5000}
    assert (found.latency.samples, found.latency.max_ns) == (4000, 5000)
    assert row(taking([1.0]), tail=False).latency is None


@pytest.mark.parametrize(
    ("verdict", "taken", "note"),
    [
        (Verdict(reason="missing: x"), None, "missing: x"),
        (GOOD, Taking(failure="OSError: gone"), "failed: OSError: gone"),
        (GOOD, Taking({0: Taken(1.0, np.array([1]))}, "OSError: gone"), "failed: OSError: gone"),
        (GOOD, None, "failed: it was not timed"),
        (Verdict(1e-3, 1e-6, "refused: wrong"), taking([1.0]), "refused: wrong"),
    ],
)
def test_what_was_not_timed_says_why(verdict, taken, note):
    found = row(taken, taking([1.0]), verdict=verdict)
    assert (found.note, found.ns, found.latency, found.ratio) == (note, None, None, None)
    assert found.error == verdict.error


def test_deadlines_missed_and_times_real_time():
    calls = [100_000] * 97 + [2_000_000, 1_500_000, 100_000]
    found = row(taking([100_000 / 64] * 3, calls), taking([50_000 / 64] * 3), AUDIO)
    # A call, not a step, is what is told of scheduled calls.
    assert found.ns.value == 100_000
    assert found.ratio.value == 2
    assert found.deadline.period_ns == pytest.approx(1_333_333.3, abs=0.1)
    assert (found.deadline.missed, found.deadline.calls) == (6, 300)
    assert not found.deadline.overrun
    assert found.times_real_time == pytest.approx(PERIOD / 100_000)


def test_who_falls_behind_is_slower_than_real_time():
    # Each call takes one and a half periods, so that each is half a period later than the last.
    calls = np.rint(PERIOD * (1.5 + 0.5 * np.arange(100))).astype(np.int64)
    found = row(taking([1.0] * 3, calls), None, AUDIO)
    assert found.deadline.overrun
    assert found.deadline.missed == 300
    assert found.times_real_time == pytest.approx(1 / 1.5, rel=1e-4)


def test_a_turn_that_ended_early_was_behind():
    assert row(taking([1.0], [10**9 + 1] * 7), None, AUDIO).deadline.overrun


def test_one_stall_at_the_end_of_a_turn_is_not_behind_for_good():
    good = np.full(100, 100_000)
    stalled = good.copy()
    stalled[85:] = 20_000_000
    turns = Taking({k: Taken(1.0, stalled if k == 1 else good) for k in range(3)})
    found = row(turns, None, AUDIO)
    assert not found.deadline.overrun
    assert found.deadline.missed == 15


def test_real_time_of_single_steps_and_random_calls():
    closed = Mode(CLOSED, rate_hz=48_000)
    assert row(taking([1000.0]), None, closed).times_real_time == pytest.approx(1e9 / 48e6)
    whole = Mode(SEQUENCE, steps=64, rate_hz=48_000)
    assert row(taking([100.0]), None, whole).times_real_time == pytest.approx(1e9 / 4.8e6)
    random = Mode(POISSON, calls=4, rate_hz=1000)
    found = row(taking([5.0], [100_000, 100_000, 1_200_000, 100_000]), None, random)
    assert found.deadline.period_ns == 1_000_000
    assert found.deadline.missed == 1
    assert found.times_real_time == pytest.approx(10)
