"""What else went on while it was measured: a fixed loop's time, load, stolen time, interruptions.

A quiet machine takes the same time for the same work. So one loop that never changes is timed in
every round, and whatever moves it has moved the contenders too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from .. import machine
from ..reports.document import Noise

if TYPE_CHECKING:
    from collections.abc import Callable

# About 1 ms of Python: long beside the timer, short beside a round.
CALIBRATION_TURNS = 15_000
# Above this the intervals of a few percent that a table prints are the machine's and not ours.
MOST_SPREAD = 0.05
# A core at half of its frequency takes 100 % longer, and one that lost a slice of time, which is
# some milliseconds, several times as long; an interrupt within the millisecond is far less.
MOST_WORST = 0.5
# One busy process is a load of 1; the average of a minute, half of one that was there for a while.
MOST_LOAD = 0.5
# A hundredth of the time is as much as the differences that rounds can tell apart.
MOST_STOLEN = 0.01
# The system's own threads interrupt now and then; another process at work on the same core takes
# its turn every few milliseconds.
MOST_SWITCHES_A_SECOND = 5.0
# Governors that keep a core slow although it has work, or raise its frequency only by and by.
SLOW_GOVERNORS = ("powersave", "conservative")


def calibration() -> int:
    """The loop: small whole numbers, no memory, no library; always the same result."""
    value = 1
    for _ in range(CALIBRATION_TURNS):
        value = (value * 75 + 74) % 65537
    return value


@dataclass(frozen=True)
class Look:
    """What the system has counted up to one moment; None where it does not count."""

    load: float | None = None  # average of a minute
    # Of all cores, in ticks: taken by the hypervisor for others, and all there was.
    stolen_ticks: int | None = None
    all_ticks: int | None = None
    involuntary_switches: int | None = None  # of this process
    governor: str | None = None
    cores: int | None = None


def look(read: machine.Read = machine.read) -> Look:
    """What the system has counted up to now."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    stolen, total = _ticks(read("/proc/stat") or "")
    switches = _involuntary_switches()
    return Look(load, stolen, total, switches, machine.governor(read), os.cpu_count())


def _ticks(stat: str) -> tuple[int | None, int | None]:
    """Stolen and all ticks of /proc/stat."""
    words = stat.partition("\n")[0].split()
    # user nice system idle iowait irq softirq steal; guests after that are in user already.
    if words[:1] != ["cpu"] or len(words) < 9:
        return None, None
    ticks = [int(word) for word in words[1:9]]
    return ticks[7], sum(ticks)


def _involuntary_switches() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Watch:
    """Made before measuring; `tick` once a round, and `noise` when all is done."""

    def __init__(
        self,
        *,
        clock: Callable[[], int] = perf_counter_ns,
        loop: Callable[[], object] = calibration,
        look: Callable[[], Look] = look,
    ) -> None:
        """Look around before the first round."""
        self._clock, self._loop, self._look = clock, loop, look
        self._ticks_ns: list[int] = []
        # The first turn of all lets the interpreter specialise the loop.
        loop()
        self._before = look()
        self._begin_ns = clock()

    def tick(self) -> None:
        """Time the fixed loop once."""
        begin = self._clock()
        self._loop()
        self._ticks_ns.append(self._clock() - begin)

    def noise(self) -> Noise:
        """What was seen since the watch was made; without a tick there is one now."""
        if not self._ticks_ns:
            self.tick()
        seconds = (self._clock() - self._begin_ns) / 1e9
        before, after = self._before, self._look()
        ticks = np.array(self._ticks_ns, float)
        median = float(np.median(ticks))
        stolen = None
        ticked = _difference(before.all_ticks, after.all_ticks)
        taken = _difference(before.stolen_ticks, after.stolen_ticks)
        if ticked and taken is not None:
            stolen = taken / ticked
        found = Noise(
            load_before=before.load,
            load_after=after.load,
            calibration_ns=median,
            calibration_spread=_over(float(np.percentile(ticks, 90)), median),
            calibration_worst=_over(float(ticks.max()), float(ticks.min())),
            stolen=stolen,
            involuntary_switches=_difference(
                before.involuntary_switches, after.involuntary_switches
            ),
        )
        warnings = _warnings(found, seconds, before)
        return found.model_copy(update={"warnings": tuple(warnings)})


def _difference(before: int | None, after: int | None) -> int | None:
    # A counter may go back a little where the hypervisor moves the machine.
    return None if before is None or after is None else max(0, after - before)


def _over(value: float, least: float) -> float:
    """How far above, as a share: 0.05 is 5 %. A clock that stood still saw no slowdown."""
    return value / least - 1 if least else 0.0


def _warnings(noise: Noise, seconds: float, before: Look) -> list[str]:
    """What a reader of the figures has to know, and what would mend it."""
    found = []
    if noise.calibration_spread > MOST_SPREAD:
        found.append(
            f"a fixed loop took {noise.calibration_spread:.0%} longer than its median in one round "
            f"of ten (more than {MOST_SPREAD:.0%}): the machine's speed moved, so trust ratios "
            "before times; end other programs and measure again"
        )
    if noise.calibration_worst > MOST_WORST:
        found.append(
            f"a fixed loop took up to {noise.calibration_worst:.0%} longer than at its fastest "
            f"(more than {MOST_WORST:.0%}): something held the process up or slowed the core; look "
            "at medians, and take single slow calls for the machine's"
        )
    if noise.load_before is not None and noise.load_before > MOST_LOAD:
        found.append(
            f"the load average was {noise.load_before:.2f} before (more than {MOST_LOAD:g}): "
            "another process was at work within the last minute; wait until it is done and "
            "measure again"
        )
    if noise.stolen is not None and noise.stolen > MOST_STOLEN:
        found.append(
            f"the hypervisor gave {noise.stolen:.1%} of the CPU time to others (more than "
            f"{MOST_STOLEN:.0%}): measure on a machine, or an instance, of your own"
        )
    switches = noise.involuntary_switches
    # In less than a second a few say nothing yet.
    seconds = max(seconds, 1.0)
    if switches is not None and switches / seconds > MOST_SWITCHES_A_SECOND:
        found.append(
            f"the process was interrupted for others {switches:,} times, {switches / seconds:.1f} "
            f"a second (more than {MOST_SWITCHES_A_SECOND:g}): end other programs, or keep the "
            "benchmark on a core of its own with taskset"
        )
    if before.governor in SLOW_GOVERNORS:
        found.append(
            f"the frequency governor is {before.governor}, which may keep a core slow for a while "
            'after it got work: set "performance" with `cpupower frequency-set -g performance`'
        )
    if before.cores == 1:
        found.append(
            "the machine has one core only: whatever else runs takes turns with what is measured; "
            "measure on two cores or more"
        )
    return found
