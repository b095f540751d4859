"""The ways of calling a model: what a call is, what its time is counted from, one turn of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from ..contenders.contender import BATCH, RUN, STEP, STEPS_IN_A_BLOCK
from ..reports.document import ModeInfo
from . import schedule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .driver import Driver, Taken

    Floats = NDArray[np.float32]

Kind = Literal["closed", "sequence", "periodic", "poisson", "streams"]
CLOSED: Final = "closed"
SEQUENCE: Final = "sequence"
PERIODIC: Final = "periodic"
POISSON: Final = "poisson"
STREAMS: Final = "streams"
# A turn's loop of steps is this long where a contender is fast enough, and never shorter than
# FEWEST steps; so a slow contender does not take the whole afternoon.
LOOP_NS, FEWEST, MOST = 20_000_000, 20, 2000
# ... and so many single calls follow it, or as many as are done in SINGLES_NS, but at least FEWEST.
SINGLES_NS = 400_000_000


@dataclass(frozen=True)
class Mode:
    """One way of calling. `calls` is how many single calls a turn times, at the most."""

    kind: Kind
    calls: int = 250
    steps: int = 1000  # of a whole sequence, or of all streams' samples
    block: int = 1
    streams: int = 1
    rate_hz: float | None = None  # samples a second

    @property
    def needs(self) -> str:
        """What a contender must be able to do to be at its best, of contender.py."""
        if self.kind == STREAMS:
            return BATCH
        return RUN if self.kind == SEQUENCE or self.block > 1 else STEP

    def way(self, can: frozenset[str]) -> str:
        """What a contender that can do so much is called by: a block may be a loop of steps."""
        stepped = self.kind in (PERIODIC, POISSON) and self.needs not in can
        return (STEPS_IN_A_BLOCK if self.block > 1 else STEP) if stepped else self.needs

    @property
    def calls_hz(self) -> float:
        """Scheduled calls a second."""
        assert self.rate_hz is not None
        return self.rate_hz / self.block

    @property
    def name(self) -> str:
        """What tables call it."""
        if self.kind == CLOSED:
            return "step"
        if self.kind == SEQUENCE:
            return "sequence"
        if self.kind == STREAMS:
            return f"{self.streams} streams"
        what = f"{self.block} samples" if self.block > 1 else "a sample"
        period = 1e3 / self.calls_hz
        if self.kind == PERIODIC:
            return f"{what} every {period:.4g} ms"
        return f"{what} at random, {self.calls_hz:,.0f} a second"

    @property
    def meaning(self) -> str:
        """What a call is and what its time is counted from, in a sentence."""
        if self.kind == CLOSED:
            return (
                "One call a time step from Python, the state carried; the next call begins when "
                "the last is done. The median is of a loop of calls, the percentiles are of single "
                "calls, the timer's own time included."
            )
        if self.kind == SEQUENCE:
            return (
                f"One call for a whole sequence of {self.steps:,} time steps (fewer for a large "
                "network), divided by its steps."
            )
        if self.kind == STREAMS:
            return (
                f"{self.streams} live streams that each get a sample at the same moments; the time "
                "of one call, or of one turn through all streams, is divided by their number."
            )
        when = (
            "at an even rate"
            if self.kind == PERIODIC
            else "at random moments (Poisson), as many a second on average"
        )
        return (
            f"{self.calls_hz:,.6g} calls a second, {when}, of {self.block} time step"
            f"{'s' * (self.block > 1)} each. A call's time is counted from when it was due, so one "
            "that comes late because the calls before it took long is seen to be late."
        )

    def info(self, ours: str) -> ModeInfo:
        """The mode as a document holds it; `ours` is what the ratios are taken to."""
        return ModeInfo(
            name=self.name,
            kind=self.kind,
            meaning=self.meaning,
            ours=ours,
            unit="call" if self.kind in (PERIODIC, POISSON) else "step",
            block=self.block,
            streams=self.streams,
            rate_hz=self.rate_hz,
        )

    def samples(self) -> int:
        """How many samples of input a turn needs; of many streams, for all together."""
        if self.kind == SEQUENCE:
            return self.steps
        if self.kind == STREAMS:
            return self.calls * self.streams
        return max(MOST, self.calls) if self.kind == CLOSED else self.calls * self.block


@dataclass
class Turn:
    """One contender's part in a mode: sized once to how fast it is, then taken once a round."""

    mode: Mode
    driver: Driver
    x: Floats  # (samples, I)
    seed: int = 0
    loop: int = 0
    singles: int = 0

    def size(self) -> float:
        """Take one short turn, choose how long the others are, return nanoseconds of a step."""
        mode = self.mode
        if mode.kind == CLOSED:
            step_ns = max(1.0, self.driver.steps(self.x[:FEWEST], FEWEST).step_ns)
            self.loop = min(max(FEWEST, round(LOOP_NS / step_ns)), MOST, len(self.x))
            self.singles = min(max(FEWEST, round(SINGLES_NS / step_ns)), mode.calls)
            return step_ns
        if mode.kind == SEQUENCE:
            step_ns = max(1.0, self.driver.sequences(self.x, 1).step_ns)
            self.singles = min(max(1, round(LOOP_NS / (step_ns * len(self.x)))), 20)
            return step_ns
        if mode.kind == STREAMS:
            step_ns = max(1.0, self._batches(min(FEWEST, mode.calls)).step_ns)
            fit = round(SINGLES_NS / (step_ns * mode.streams))
            self.singles = min(max(FEWEST, fit), mode.calls)
            return step_ns
        return self._scheduled(min(FEWEST, mode.calls), 0).step_ns

    def __call__(self, number: int) -> Taken:
        """The turn of round `number`; what comes at random is the same for all in a round."""
        mode = self.mode
        if mode.kind == CLOSED:
            return self.driver.steps(self.x[: self.loop], self.singles)
        if mode.kind == SEQUENCE:
            return self.driver.sequences(self.x, self.singles)
        if mode.kind == STREAMS:
            return self._batches(self.singles)
        return self._scheduled(mode.calls, number)

    def time_steps(self) -> int:
        """How many time steps a turn takes, of all streams together."""
        mode = self.mode
        if mode.kind == CLOSED:
            return self.loop + self.singles
        if mode.kind == SEQUENCE:
            return self.singles * len(self.x)
        if mode.kind == STREAMS:
            return self.singles * mode.streams
        return mode.calls * mode.block

    def _batches(self, calls: int) -> Taken:
        streams = self.mode.streams
        shape = (calls, streams, self.x.shape[1])
        return self.driver.batches(self.x[: calls * streams].reshape(shape))

    def _scheduled(self, calls: int, number: int) -> Taken:
        mode = self.mode
        if mode.kind == PERIODIC:
            due = schedule.periodic(calls, mode.calls_hz)
        else:
            due = schedule.poisson(calls, mode.calls_hz, self.seed + number)
        shape = (calls, mode.block, self.x.shape[1])
        return self.driver.scheduled(self.x[: calls * mode.block].reshape(shape), due)
