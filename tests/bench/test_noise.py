"""The noise: figures from the fixed loop's times and the system's counters, warnings with both."""

import pytest

from fastlstm.bench.timing import noise
from fastlstm.bench.timing.noise import Look, Watch

QUIET = Look(0.1, 100, 10_000, 7, "performance", 4)


class Machine:
    """A clock that the fixed loop moves, a millisecond unless `slow` says otherwise for a turn."""

    def __init__(self, *times_ns):
        self.now, self.times = 0, iter([1_000_000, *times_ns])

    def clock(self):
        return self.now

    def loop(self):
        self.now += next(self.times, 1_000_000)

    def watch(self, before=QUIET, after=None):
        looks = iter([before, after or before])
        return Watch(clock=self.clock, loop=self.loop, look=lambda: next(looks))


def noise_of(*times_ns, before=QUIET, after=None, seconds=0.0):
    machine = Machine(*times_ns)
    watch = machine.watch(before, after)
    for _ in times_ns:
        watch.tick()
    machine.now += int(seconds * 1e9)
    return watch.noise()


def test_a_quiet_machine_gives_no_warning():
    found = noise_of(1000, 1000, 1000)
    assert found.calibration_ns == 1000
    assert (found.calibration_spread, found.calibration_worst) == (0, 0)
    assert (found.load_before, found.load_after) == (0.1, 0.1)
    assert (found.stolen, found.involuntary_switches) == (None, 0)
    assert found.warnings == ()


def test_spread_and_worst_are_shares_above_median_and_fastest():
    # Of these eleven the median is 1000 and the 90th percentile 1100, exactly.
    found = noise_of(900, *[1000] * 7, 1050, 1100, 1800)
    assert found.calibration_ns == 1000
    assert found.calibration_spread == pytest.approx(0.1)
    assert found.calibration_worst == pytest.approx(1.0)
    spread, worst = found.warnings
    assert "took 10% longer than its median" in spread
    assert "(more than 5%)" in spread
    assert "up to 100% longer than at its fastest (more than 50%)" in worst


def test_the_first_turn_does_not_count():
    machine = Machine(1000)
    machine.times = iter([50_000, 1000])
    watch = machine.watch()
    watch.tick()
    assert watch.noise().calibration_ns == 1000


def test_without_a_round_the_loop_is_timed_once():
    machine = Machine(1234)
    assert machine.watch().noise().calibration_ns == 1234


def test_counters_are_differences_over_the_whole():
    after = Look(1.2, 130, 11_000, 19)
    found = noise_of(1000, after=after, seconds=10)
    assert found.load_after == 1.2
    assert found.stolen == 30 / 1000
    assert found.involuntary_switches == 12
    (stolen,) = found.warnings
    assert "gave 3.0% of the CPU time to others (more than 1%)" in stolen


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (Look(0.51), None, "the load average was 0.51 before (more than 0.5): another process was"),
        (Look(None, governor="powersave"), None, "the frequency governor is powersave"),
        (Look(None, cores=1), None, "one core only"),
        (
            Look(involuntary_switches=10),
            Look(involuntary_switches=1_310),
            "interrupted for others 1,300 times, 65.0 a second (more than 5)",
        ),
    ],
)
def test_each_warning_has_its_figure_and_what_to_do(before, after, words):
    (found,) = noise_of(1000, before=before, after=after, seconds=20).warnings
    assert words in found
    assert any(advice in found for advice in ("measure", "taskset", "cpupower"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Look(0.5, governor="schedutil", cores=2), None),
        (Look(involuntary_switches=0), Look(involuntary_switches=100)),
        (Look(0.0, 0, 0), Look(9.0, 10, 1000)),
        # A counter that went back, as it does on a machine that was moved.
        (Look(0.0, 50, 100, 9), Look(0.0, 40, 1100, 8)),
        (Look(), Look()),
    ],
)
def test_what_is_at_or_under_its_threshold_is_no_warning(before, after):
    assert noise_of(1000, before=before, after=after, seconds=20).warnings == ()


def test_a_few_switches_in_a_moment_say_nothing():
    before, after = Look(involuntary_switches=0), Look(involuntary_switches=5)
    assert noise_of(1000, before=before, after=after, seconds=0.01).warnings == ()


def test_the_counters_are_read_as_linux_writes_them(monkeypatch):
    files = {"/proc/stat": "cpu  10 20 30 400 5 6 7 22 3 1\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5"}
    monkeypatch.setattr(noise.machine, "_allowed", lambda: [3])
    files["/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor"] = "powersave"
    found = noise.look(files.get)
    # Guests are in user already.
    assert (found.stolen_ticks, found.all_ticks) == (22, 500)
    assert found.governor == "powersave"
    for text in ("", "cpu 1 2 3", "something else"):
        found = noise.look({"/proc/stat": text}.get)
        assert (found.stolen_ticks, found.all_ticks, found.governor) == (None, None, None)


def test_the_fixed_loop_always_computes_the_same():
    # One more than the value is taken times 75 each turn, and it begins as 2.
    expected = (2 * pow(75, noise.CALIBRATION_TURNS, 65537) - 1) % 65537
    assert noise.calibration() == noise.calibration() == expected


def test_a_real_watch_sees_this_machine():
    watch = Watch()
    watch.tick()
    found = watch.noise()
    assert found.calibration_ns > 0
    assert found.calibration_spread == found.calibration_worst == 0
    if found.stolen is not None:
        assert 0 <= found.stolen <= 1
