"""A turn is as long as a contender's speed allows, and every mode says what it counts."""

import numpy as np
import pytest

from fake_time import Costly, FakeTime, samples
from fastlstm.bench.contenders.contender import BATCH, RUN, STEP, STEPS_IN_A_BLOCK
from fastlstm.bench.timing.local import WARM_UP, LocalDriver
from fastlstm.bench.timing.modes import (
    CLOSED,
    FEWEST,
    MOST,
    PERIODIC,
    POISSON,
    SEQUENCE,
    STREAMS,
    Mode,
    Turn,
)

AUDIO = Mode(PERIODIC, calls=100, block=64, rate_hz=48_000)


def turn_of(mode, cost):
    time = FakeTime()
    session = Costly(time, cost)
    turn = Turn(mode, LocalDriver(session, time.clock), samples(mode.samples()))
    return turn, session


def test_names_needs_and_rates():
    random = Mode(POISSON, rate_hz=1000)
    modes = (Mode(CLOSED), Mode(SEQUENCE), AUDIO, random, Mode(STREAMS, streams=16))
    assert [mode.needs for mode in modes] == [STEP, RUN, RUN, STEP, BATCH]
    # A block may be a loop of steps; a whole sequence and many streams may not.
    steps_only = frozenset((STEP,))
    assert [mode.way(steps_only) for mode in modes] == [STEP, RUN, STEPS_IN_A_BLOCK, STEP, BATCH]
    assert random.way(frozenset((RUN,))) == STEP
    assert [mode.name for mode in modes] == [
        "step",
        "sequence",
        "64 samples every 1.333 ms",
        "a sample at random, 1,000 a second",
        "16 streams",
    ]
    assert AUDIO.calls_hz == 750
    info = AUDIO.info("ours")
    assert (info.unit, info.block, info.rate_hz, info.ours) == ("call", 64, 48_000, "ours")
    assert "750 calls a second, at an even rate, of 64 time steps each" in info.meaning
    assert "from when it was due" in random.meaning
    assert Mode(STREAMS, streams=16).info("o").streams == 16


@pytest.mark.parametrize(
    ("cost", "loop", "singles"),
    [(10, MOST, 250), (100_000, 200, 250), (10_000_000, FEWEST, 40), (10**9, FEWEST, FEWEST)],
)
def test_a_slow_contender_takes_fewer_steps_a_turn(cost, loop, singles):
    turn, session = turn_of(Mode(CLOSED), cost)
    assert turn.size() == pytest.approx(cost, rel=0.1)
    assert (turn.loop, turn.singles) == (loop, singles)
    session.log.clear()
    taken = turn(0)
    assert len(session.log) == min(loop, WARM_UP) + loop + singles
    assert len(taken.calls_ns) == singles
    assert turn.time_steps() == loop + singles


@pytest.mark.parametrize(("cost", "calls"), [(10, 20), (4_000, 5), (10_000_000, 1)])
def test_a_sequence_is_called_as_often_as_fits(cost, calls):
    turn, _ = turn_of(Mode(SEQUENCE, steps=1000), cost)
    turn.size()
    assert len(turn(0).calls_ns) == calls
    assert turn(1).step_ns == pytest.approx(cost, rel=0.01)
    assert turn.time_steps() == calls * 1000


@pytest.mark.parametrize(("cost", "calls"), [(10, 250), (1_000_000, 25), (10**8, FEWEST)])
def test_many_streams_are_turned_through_as_often_as_fits(cost, calls):
    turn, _ = turn_of(Mode(STREAMS, streams=16), cost)
    turn.size()
    taken = turn(0)
    assert len(taken.calls_ns) == calls
    assert taken.step_ns == pytest.approx(cost, rel=0.01)
    assert turn.time_steps() == calls * 16


def test_what_comes_at_random_is_the_same_for_all_in_a_round():
    class Listening:
        def scheduled(self, blocks, due_ns):
            self.blocks, self.due = blocks, due_ns

    mode = Mode(POISSON, calls=50, rate_hz=1000)
    first, second = Listening(), Listening()
    x = np.arange(mode.samples(), dtype=np.float32)[:, None]
    Turn(mode, first, x, seed=3)(4)
    Turn(mode, second, x, seed=3)(4)
    assert (first.due == second.due).all()
    Turn(mode, second, x, seed=3)(5)
    assert (first.due != second.due).any()
    assert first.blocks.shape == (50, 1, 1)
    periodic = Listening()
    blocks = np.arange(AUDIO.samples(), dtype=np.float32)[:, None]
    Turn(AUDIO, periodic, blocks)(0)
    assert periodic.blocks[3].ravel().tolist() == list(range(192, 256))
    assert np.diff(periodic.due)[:3].tolist() == [1_333_333, 1_333_334, 1_333_333]
