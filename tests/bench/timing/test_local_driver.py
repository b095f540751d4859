"""Turns on a fake clock: what is counted, from when, and what a stall does to later calls."""

import numpy as np
import pytest

from fake_time import Costly, FakeTime, samples
from fastlstm.bench.timing import local, schedule
from fastlstm.bench.timing.driver import Driver
from fastlstm.bench.timing.local import HOPELESS_NS, WARM_UP, LocalDriver, drive


@pytest.fixture
def time():
    return FakeTime()


def driver(time, cost):
    session = Costly(time, cost)
    return LocalDriver(session, time.clock), session


def test_steps_are_timed_as_a_loop_and_one_by_one(time):
    timed, session = driver(time, 100)
    taken = timed.steps(samples(50), 70)
    # Two looks at the clock are in the loop; one in each single call. Each look takes 1 ns.
    assert taken.step_ns == pytest.approx((50 * 100 + 1) / 50)
    assert taken.calls_ns.tolist() == [101] * 70
    assert session.resets == 1
    assert len(session.log) == WARM_UP + 50 + 70


def test_what_a_session_offers_for_timing_is_what_is_timed(time):
    timed, session = driver(time, 100)
    session.timed_step = lambda x: session._take(2)
    assert timed.steps(samples(40), 3).calls_ns.tolist() == [201] * 3


def test_a_sequence_is_timed_by_call_and_divided_by_its_steps(time):
    timed, session = driver(time, 10)
    taken = timed.sequences(samples(200), 4)
    assert taken.calls_ns.tolist() == [2001] * 4
    assert taken.step_ns == pytest.approx(2001 / 200)
    assert len(session.log) == 5  # the first does not count


def test_streams_are_timed_together_and_divided_by_their_number(time):
    timed, session = driver(time, 10)
    taken = timed.batches(np.zeros((30, 16, 1), np.float32))
    assert taken.calls_ns.tolist() == [161] * 30
    assert taken.step_ns == pytest.approx(161 / 16)
    # The same streams are used again, from their beginning.
    first = timed.many[16]
    timed.batches(np.zeros((30, 16, 1), np.float32))
    assert timed.many == {16: first}
    assert session.resets == 2


def test_a_scheduled_call_never_begins_before_it_is_due(time):
    begun = []

    def cost():
        begun.append(time.now_ns)
        return 50

    timed, _ = driver(time, cost)
    due = schedule.periodic(20, 1e6)
    taken = timed.scheduled(np.zeros((20, 1, 1), np.float32), due)
    begun = np.array(begun[20:])  # without the warm-up, which is as long as the turn here
    assert np.all(np.diff(begun) >= 995)
    # Done about 50 ns after it was due: the looks at the clock are in it.
    assert np.all((taken.calls_ns >= 50) & (taken.calls_ns <= 60))


def test_a_stall_is_seen_by_all_calls_that_had_to_wait_for_it(time):
    """Coordinated omission: a closed loop shows one slow call, a schedule shows what it cost."""
    number = iter(range(10**6))
    timed, _ = driver(time, lambda: 50_000 if next(number) == WARM_UP + 100 else 100)
    count = 400
    taken = timed.scheduled(np.zeros((count, 1, 1), np.float32), schedule.periodic(count, 1e6))
    late = taken.calls_ns
    # One call in 1,000 ns was due; the stall of 50 us makes the next 50 or so late, each by a
    # period less its own time less than the one before.
    assert (late[:100] < 200).all()
    assert late[100] == pytest.approx(50_000, abs=20)
    waited = (late > 1000).sum()
    assert 50 <= waited <= 60
    falling = np.diff(late[100:150])
    assert (falling < 0).all()
    assert falling.mean() == pytest.approx(-898, abs=5)


def test_a_closed_loop_shows_the_same_stall_once(time):
    number = iter(range(10**6))
    timed, _ = driver(time, lambda: 50_000 if next(number) == 100 else 100)
    calls = timed.steps(samples(50), 400).calls_ns
    assert (calls > 1000).sum() == 1


def test_who_is_too_slow_for_the_rate_falls_ever_further_behind(time):
    timed, _ = driver(time, 1500)
    late = timed.scheduled(np.zeros((300, 1, 1), np.float32), schedule.periodic(300, 1e6)).calls_ns
    assert late[-1] == pytest.approx(299 * 500 + 1500, rel=0.01)
    assert (np.diff(late) > 0).all()


def test_a_turn_without_hope_ends_early(time):
    timed, _ = driver(time, HOPELESS_NS // 4)
    late = timed.scheduled(np.zeros((300, 1, 1), np.float32), schedule.periodic(300, 1e6))
    assert len(late.calls_ns) == 5
    assert late.calls_ns[-1] > HOPELESS_NS >= late.calls_ns[-2]


def test_a_block_is_one_call(time):
    timed, session = driver(time, 10)
    taken = timed.scheduled(np.zeros((40, 64, 1), np.float32), schedule.periodic(40, 1e5))
    assert len(session.log) == WARM_UP + 40
    assert np.all((taken.calls_ns >= 640) & (taken.calls_ns < 660))
    assert taken.step_ns == pytest.approx(np.median(taken.calls_ns) / 64)


def test_a_long_wait_sleeps_and_a_short_one_spins(time):
    slept = []
    clock = local.Clock(time.look, lambda s: (slept.append(s), time.sleep(s)))
    clock.wait_until(5_000_000)
    assert slept == [pytest.approx(0.0047, abs=1e-6)]
    assert 5_000_000 <= time.now_ns <= 5_000_002
    clock.wait_until(time.now_ns + 100)
    clock.wait_until(time.now_ns - 100)  # past: at once
    assert len(slept) == 1


def test_a_session_that_times_itself_is_its_own_driver(time):
    class Remote(Costly):
        def steps(self, x, singles): ...
        def sequences(self, x, calls): ...
        def scheduled(self, blocks, due_ns): ...
        def batches(self, x): ...

    remote, near = Remote(time, 1), Costly(time, 1)
    assert drive(remote) is remote
    assert isinstance(drive(near, time.clock), LocalDriver)
    assert isinstance(drive(near), Driver)


def test_schedules():
    due = schedule.periodic(1000, 48_000 / 64)
    assert due[0] == 0
    assert due[999] == round(999 * 64 / 48_000 * 1e9)
    times = schedule.poisson(200_000, 1000.0, 7)
    gaps = np.diff(times) / 1e6  # milliseconds
    # Exponential gaps: mean and deviation 1, 63.2 % of them below the mean; neighbours independent.
    assert gaps.mean() == pytest.approx(1, abs=0.01)
    assert gaps.std() == pytest.approx(1, abs=0.01)
    assert (gaps < 1).mean() == pytest.approx(1 - np.exp(-1), abs=0.005)
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0, abs=0.01)
    assert (schedule.poisson(50, 10, 1) == schedule.poisson(50, 10, 1)).all()
    assert (schedule.poisson(50, 10, 1) != schedule.poisson(50, 10, 2)).any()
