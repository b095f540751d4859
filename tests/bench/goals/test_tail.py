"""The tail: every call by itself, percentiles of all of them, and a core that is really busy."""

import gc
import os

import numpy as np
import pytest

from fastlstm.bench.goals import tail
from fastlstm.bench.goals.rows import Settings


class Clock:
    """Moves by `look` at each look, and by what a call adds."""

    def __init__(self, look=0):
        self.now, self.look = 0, look

    def __call__(self):
        self.now += self.look
        return self.now


def test_each_call_is_timed_by_itself_without_the_collector():
    clock, seen = Clock(look=20), []

    def call(sample):
        assert not gc.isenabled()
        seen.append(sample)
        clock.now += 1000 if len(seen) == 10 else 100

    times = tail.single_calls(call, "abc", 9, clock)
    # All samples once to warm up, then in turn; the tenth call is the seventh that counts.
    assert "".join(seen) == "abc" + "abcabcabc"
    assert times.tolist() == [120] * 6 + [1020] + [120] * 2
    assert gc.isenabled()
    assert tail.single_calls(None, "abc", 4, clock).tolist() == [20] * 4


def test_the_percentiles_are_those_of_all_calls():
    calls = np.array([100] * 9_980 + [300] * 15 + [5_000] * 5)
    row = tail._row("busy", calls, 20.0, 2.0)
    assert (row.measured, row.met) == (3.0, False)
    assert row.figures == {
        "p50 ns": 100,
        "p99 ns": 100,
        "p99.9 ns": 300,
        "greatest ns": 5000,
        "timer ns": 20,
        "without the timer": 280 / 80,
        "calls": 10_000,
    }


def test_both_situations_are_measured(growing_clock):
    settings = Settings(single_calls=100, clock=growing_clock)
    rows = tail.slowest_calls(settings, lambda words: None)
    assert [(row.what, row.goal) for row in rows] == [
        ("the other core busy", 2.0),
        ("the other core left alone", None),
    ]
    for row in rows:
        if row.note:
            assert (row.measured, row.met) == (None, False)
        else:
            assert row.measured == row.figures["p99.9 ns"] / row.figures["p50 ns"]
            assert row.figures["calls"] == 100


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no process can be pinned here")
def test_a_pinned_process_may_go_everywhere_again_afterwards():
    before = os.sched_getaffinity(0)
    with tail.pinned() as other:
        (ours,) = os.sched_getaffinity(0)
        assert ours in before
        assert other != ours
    assert os.sched_getaffinity(0) == before


def test_the_other_process_works_meanwhile_and_ends_with_it():
    with tail.pinned() as other:
        if other is None:
            pytest.skip("one core only")
        with tail.busy(other) as process:
            assert process.poll() is None
        assert process.poll() is not None
