"""Rounds are interleaved and shuffled, ratios are of one round, and who fails is out alone."""

import gc

import numpy as np
import pytest

from fastlstm.bench.timing.driver import Taken
from fastlstm.bench.timing.rounds import interleave


def turn(log, key, name, step_ns=1.0):
    def take(number):
        log.append((number, key, name))
        value = step_ns(number) if callable(step_ns) else step_ns
        return Taken(value, np.array([1], np.int64))

    return take


def groups_of(log, keys="XYZ", names="abcd"):
    return {key: {name: turn(log, key, name) for name in names} for key in keys}


def test_every_round_takes_each_contender_of_each_group_once():
    log = []
    found = interleave(groups_of(log), 10)
    assert len(log) == 10 * 3 * 4
    for number in range(10):
        of_round = [entry[1:] for entry in log if entry[0] == number]
        assert sorted(of_round) == sorted((key, name) for key in "XYZ" for name in "abcd")
    assert all(sorted(t.rounds) == list(range(10)) for g in found.values() for t in g.values())


def test_contenders_that_are_compared_take_their_turns_right_after_one_another():
    log = []
    interleave(groups_of(log), 10)
    for at in range(0, len(log), 4):
        assert len({key for _, key, _ in log[at : at + 4]}) == 1


def test_the_order_is_another_one_in_each_round_and_the_same_with_the_same_seed():
    log, again, other = [], [], []
    interleave(groups_of(log), 30, seed=4)
    interleave(groups_of(again), 30, seed=4)
    interleave(groups_of(other), 30, seed=5)
    assert log == again != other
    of_groups = {tuple(key for _, key, _ in log[at : at + 12 : 4]) for at in range(0, 360, 12)}
    of_names = {tuple(name for _, _, name in log[at : at + 4]) for at in range(0, 360, 4)}
    assert len(of_groups) == 6  # all orders of three
    assert len(of_names) > 20  # of the 24 of four


def test_a_contender_that_raises_is_out_and_the_others_go_on():
    log = []

    def breaks(number):
        if number == 2:
            raise OSError("the pipe\nis gone")
        return Taken(1.0, np.array([1], np.int64))

    groups = {"X": {"good": turn(log, "X", "good"), "bad": breaks}}
    found = interleave(groups, 5)["X"]
    assert sorted(found["good"].rounds) == [0, 1, 2, 3, 4]
    assert sorted(found["bad"].rounds) == [0, 1]
    assert found["bad"].failure == "OSError: the pipe"
    assert found["good"].failure == ""


def test_a_slow_contender_takes_part_in_the_first_rounds_only():
    log = []
    found = interleave(groups_of(log, "X", "ab"), 9, fewer={("X", "b"): 3})["X"]
    assert sorted(found["a"].rounds) == list(range(9))
    assert sorted(found["b"].rounds) == [0, 1, 2]


def test_the_collector_is_off_meanwhile_and_on_again_afterwards():
    states = []
    interleave({"X": {"a": lambda number: states.append(gc.isenabled())}}, 3)
    assert states == [False] * 3
    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt):
        interleave({"X": {"a": _interrupt}}, 1)
    assert gc.isenabled()


def _interrupt(number):
    raise KeyboardInterrupt


def test_ticks_and_progress_come_once_a_group():
    ticks, words = [], []
    interleave(groups_of([], "XY", "ab"), 3, tick=lambda: ticks.append(1), progress=words.append)
    assert len(ticks) == len(words) == 6
    assert words[0].startswith("round 1 of 3, 1 of 2: ")
