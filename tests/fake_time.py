"""A clock that only moves when a contender says how long it took, and contenders that do."""

import numpy as np

from fastlstm.bench.timing.clock import Clock


class FakeTime:
    """Nanoseconds; `clock` is a Clock that reads them and whose sleep moves them on."""

    def __init__(self):
        self.now_ns = 0
        self.looks = 0

    def look(self):
        # A wait that spins sees time go by, as it would.
        self.looks += 1
        self.now_ns += 1
        return self.now_ns

    def sleep(self, seconds):
        self.now_ns += round(seconds * 1e9)

    @property
    def clock(self):
        return Clock(self.look, self.sleep)


class Costly:
    """A session of one input and one output; each call takes what `cost` says, in nanoseconds."""

    def __init__(self, time, cost, name="", log=None):
        self.time, self.cost, self.name = time, cost, name
        self.log = [] if log is None else log
        self.resets = 0

    def _take(self, times=1):
        self.log.append(self.name)
        self.time.now_ns += (self.cost() if callable(self.cost) else self.cost) * times

    def reset(self):
        self.resets += 1

    def step(self, x):
        self._take()
        return x[:1]

    def run(self, x):
        self._take(len(x))
        return x[:, :1]

    def batch(self, streams):
        return Several(self, streams)

    def close(self):
        pass


class Several:
    """Streams of a Costly session, one after the other."""

    def __init__(self, session, streams):
        self.session, self.streams = session, streams

    def reset(self):
        self.session.resets += 1

    def step(self, x):
        assert len(x) == self.streams
        self.session._take(self.streams)
        return x[:, :1]


def samples(count, inputs=1):
    return np.zeros((count, inputs), np.float32)
