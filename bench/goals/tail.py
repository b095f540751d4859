"""The slowest of a million calls: each timed by itself, while the other core is at work."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import reference

from ..models import plain_model
from .contenders import STEP, our_contender
from .rows import Row, Settings, Tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .timing import Clock

HIDDEN = 32
GOAL = 2.0
SAMPLES = 1000
# Ends by itself when its parent is gone.
BUSY = """
import os, sys
import numpy
core = int(sys.argv[1])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {core})
parent = os.getppid()
a = numpy.ones((512, 512), numpy.float32)
print("ready", flush=True)
while os.getppid() == parent:
    a @ a
"""


def slowest_calls(settings: Settings, tell: Tell) -> list[Row]:
    """8. The 99.9th percentile of single calls over their median."""
    model = plain_model("LSTM", HIDDEN)
    push, _ = our_contender(model, STEP)
    samples = list(reference.check_input(model, SAMPLES, seed=2))
    count, clock = settings.single_calls, settings.clock
    with pinned() as other:
        tell("the timer alone")
        timer_ns = float(np.median(single_calls(None, samples, count // 10, clock)))
        tell("calls, the other core idle")
        idle = single_calls(push.call, samples, count, clock)
        rows = [_row("the other core left alone", idle, timer_ns, None)]
        if other is None:
            note = "this machine has no second core to keep busy, or a process cannot be pinned"
            return [Row("the other core busy", None, GOAL, note=note), *rows]
        with busy(other):
            tell("calls, the other core busy")
            calls = single_calls(push.call, samples, count, clock)
    return [_row("the other core busy", calls, timer_ns, GOAL), *rows]


def _row(what: str, calls: np.ndarray[Any, Any], timer_ns: float, goal: float | None) -> Row:
    p50, p99, p999 = (float(value) for value in np.percentile(calls, (50, 99, 99.9)))
    net = (p999 - timer_ns) / (p50 - timer_ns) if p50 > timer_ns else None
    return Row(
        what,
        p999 / p50,
        goal,
        {
            "p50 ns": p50,
            "p99 ns": p99,
            "p99.9 ns": p999,
            "greatest ns": float(calls.max()),
            "timer ns": timer_ns,
            "without the timer": net,
            "calls": float(len(calls)),
        },
    )


def single_calls(
    call: Callable[[Any], Any] | None, samples: Sequence[Any], count: int, clock: Clock
) -> np.ndarray[Any, Any]:
    """Nanoseconds of each of `count` calls; None times the timer itself.

    The garbage collector is off, and what is written down is of a fixed size from the start.
    """
    times = array("q", bytes(8 * count))
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        if call is None:
            for k in range(count):
                begin = clock()
                times[k] = clock() - begin
        else:
            number = len(samples)
            # The first calls bring weights and code into the caches.
            for sample in samples:
                call(sample)
            for k in range(count):
                sample = samples[k % number]
                begin = clock()
                call(sample)
                times[k] = clock() - begin
    finally:
        if enabled:
            gc.enable()
    return np.array(times)


@contextmanager
def pinned() -> Iterator[int | None]:
    """Keep this process on one core; gives another one, or None where there is none to be had."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    allowed = os.sched_getaffinity(0)
    # Not the first if there is a choice: most systems handle their interrupts there.
    ours = max(allowed)
    others = sorted(allowed - {ours}) or sorted(set(range(os.cpu_count() or 1)) - {ours})
    os.sched_setaffinity(0, {ours})
    try:
        yield others[0] if others else None
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def busy(core: int) -> Iterator[subprocess.Popen[str]]:
    """Multiply matrices on a core meanwhile, in another process, which is given."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(core)],
        env={**os.environ, **one_thread},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"core {core} could not be kept busy")
        yield process
    finally:
        process.kill()
        process.communicate()
