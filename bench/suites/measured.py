"""What every test here does: agree with the reference first, then time the very same thing.

`make bench` runs them. They are for whoever changes a kernel, and gate nothing: none fails because
of speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlstm import reference
from fastlstm.verify import Yardstick, judge, truth

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlstm.model import Model
    from fastlstm.roads import SequenceSession, StreamSession
    from fastlstm.verify import Run

CHECK_STEPS = 200
# In one timed call, so that a look at the clock and a call from Python do not count.
STEPS = 1000


def agrees(run: Run, model: Model) -> None:
    """Raise AssertionError unless `run` is within the bound of verify.truth on a stream."""
    true = truth(model, reference.check_input(model, CHECK_STEPS, seed=1))
    row = judge("measured", run, true, Yardstick(model))
    assert row.verdict == "ok", row


def by_run(session: StreamSession | SequenceSession) -> Run:
    """A session's whole blocks as verify.judge takes them."""

    def run(x: Any) -> Any:
        session.reset()
        return session.run(x), session.state()

    return run


def timed(benchmark: Any, call: Callable[[], Any], steps: int = 1) -> None:
    """Time `call`, which does `steps` time steps; moved.py divides by them."""
    benchmark.extra_info["steps"] = steps
    # Code and weights into the caches.
    for _ in range(3):
        call()
    benchmark(call)
