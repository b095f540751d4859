"""The goals' timing: rounds are interleaved, figures come from the clock, ratios from one round."""

import numpy as np

from fastlstm.bench.goals.contenders import SEQUENCE, STEP, Contender
from fastlstm.bench.goals.timing import SEQUENCE_CALLS, SINGLE_CALLS, Times, measure, ratios


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


def test_goal_times_and_ratios_come_from_the_clock():
    clock, log = Clock(), []
    ours = contender("ours", STEP, clock, 10, log)
    theirs = contender("theirs", STEP, clock, 25, log)
    times = measure([ours, theirs], np.zeros((400, 1)), 5, clock=clock)
    assert times["ours"].rounds == [10] * 5
    assert times["ours"].median_ns == 10
    assert times["theirs"].p99_ns == 25
    assert len(times["theirs"].calls) == 5 * SINGLE_CALLS
    assert ratios(times["theirs"], times["ours"]) == [2.5] * 5


def test_a_whole_sequence_is_timed_per_step():
    clock = Clock()
    whole = contender("whole", SEQUENCE, clock, 1000, [])
    assert measure([whole], np.zeros((50, 1)), 3, clock=clock)["whole"].rounds == [20] * 3


def test_the_99th_percentile_shows_a_stall_that_the_median_hides():
    clock = Clock()
    calls = iter(range(10**9))
    stalling = contender("stalling", STEP, clock, lambda: 5000 if next(calls) % 50 == 0 else 10, [])
    times = measure([stalling], np.zeros((500, 1)), 5, clock=clock)["stalling"]
    assert np.median(times.calls) == 10
    assert times.p99_ns == 5000


def test_goal_rounds_are_interleaved_and_shuffled():
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


def test_goal_ratios_are_taken_within_a_round():
    # The machine slows down tenfold halfway; the ratio does not notice.
    ours, theirs = Times([10, 10, 100]), Times([30, 30, 300])
    assert ratios(theirs, ours) == [3, 3, 3]
