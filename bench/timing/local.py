"""Drives a session of this process while the clock runs.

Everything that is timed is bound to a local name first, lists and arrays are made before, and the
times are written into memory that is there already: what is measured is the call.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from .clock import Clock
from .driver import Driver, Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ..contenders.contender import Session, Streams

    Floats = NDArray[np.float32]
    Call = Callable[[Any], Any]

# Calls at the start of a turn that do not count: they bring weights and code back into the caches
# that the contender before has used.
WARM_UP = 32
# Scheduled calls begin this long after the turn, so that the first is not late by itself.
LEAD_NS = 1_000_000
# A contender that is so far behind its schedule does not catch up: the turn ends.
HOPELESS_NS = 1_000_000_000


def drive(session: Session, clock: Clock | None = None) -> Driver:
    """The session itself if it times itself, else a driver around it."""
    return session if isinstance(session, Driver) else LocalDriver(session, clock or Clock())


class LocalDriver:
    """See Driver. `timed_step` of a session, where it has one, is `step` without a fresh array."""

    def __init__(self, session: Session, clock: Clock) -> None:
        """Of `session`, by `clock`."""
        self.session, self.clock = session, clock
        self.many: dict[int, Streams] = {}

    @property
    def _step(self) -> Call:
        step: Call = getattr(self.session, "timed_step", self.session.step)
        return step

    def steps(self, x: Floats, singles: int) -> Taken:
        """See Driver."""
        self.session.reset()
        call, now, samples = self._step, self.clock.now, list(x)
        _warm(call, samples)
        start = now()
        for sample in samples:
            call(sample)
        end = now()
        again = [samples[k % len(samples)] for k in range(singles)]
        return Taken((end - start) / len(samples), _singly(call, again, now))

    def sequences(self, x: Floats, calls: int) -> Taken:
        """See Driver."""
        self.session.reset()
        run, now = self.session.run, self.clock.now
        # Of the very length that is timed: a runtime may prepare itself for each length anew.
        run(x)
        times = _singly(run, [x] * calls, now)
        return Taken(float(times.mean()) / len(x), times)

    def scheduled(self, blocks: Floats, due_ns: NDArray[np.int64]) -> Taken:
        """See Driver. Ends early once a call is done a second late."""
        session, clock = self.session, self.clock
        session.reset()
        call: Call = self._step if blocks.shape[1] == 1 else session.run
        inputs = list(blocks[:, 0] if blocks.shape[1] == 1 else blocks)
        _warm(call, inputs)
        now, wait = clock.now, clock.wait_until
        late = array("q", bytes(8 * len(inputs)))
        start = now() + LEAD_NS
        done = 0
        for at, value in zip(due_ns.tolist(), inputs, strict=True):
            due = start + at
            wait(due)
            call(value)
            late[done] = now() - due
            done += 1
            if late[done - 1] > HOPELESS_NS:
                break
        latencies = np.array(late, np.int64)[:done]
        return Taken(float(np.median(latencies)) / blocks.shape[1], latencies)

    def batches(self, x: Floats) -> Taken:
        """See Driver."""
        count = x.shape[1]
        if count not in self.many:
            self.many[count] = self.session.batch(count)
        streams = self.many[count]
        streams.reset()
        samples = list(x)
        call: Call = getattr(streams, "timed_step", streams.step)
        _warm(call, samples)
        times = _singly(call, samples, self.clock.now)
        return Taken(float(times.mean()) / count, times)


def _warm(call: Call, inputs: Sequence[Any]) -> None:
    for value in inputs[:WARM_UP]:
        call(value)


def _singly(call: Call, inputs: Sequence[Any], now: Callable[[], int]) -> NDArray[np.int64]:
    """Nanoseconds of each call."""
    times = array("q", bytes(8 * len(inputs)))
    for k, value in enumerate(inputs):
        start = now()
        call(value)
        times[k] = now() - start
    return np.array(times, np.int64)
