"""How the goals and the floor time: rounds of all contenders, in a new order, ratios within one.

Machines drift from second to second, so a ratio is only taken between times of one round.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import numpy as np

from ..timing.rounds import no_collector
from .contenders import SEQUENCE, STEP, Contender

Clock = Callable[[], int]
# Calls timed one by one, per contender and round: for the tail, which an average over a loop hides.
SINGLE_CALLS = 300
SEQUENCE_CALLS = 5


@dataclass
class Times:
    """What was measured of one contender."""

    # Nanoseconds a step, one value a round.
    rounds: list[float] = field(default_factory=list)
    # Nanoseconds of single calls in STEP mode, of a step within single calls in SEQUENCE mode.
    calls: list[float] = field(default_factory=list)

    @property
    def median_ns(self) -> float:
        return float(np.median(self.rounds))

    @property
    def p99_ns(self) -> float:
        return float(np.percentile(self.calls, 99))


def measure(
    contenders: Sequence[Contender],
    x: np.ndarray[Any, Any],
    rounds: int,
    *,
    sequence_calls: int = SEQUENCE_CALLS,
    clock: Clock = perf_counter_ns,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Times]:
    """Time every contender over x (time, input_size), `rounds` times, by name.

    One that takes whole sequences is called `sequence_calls` times a round.
    """
    times = {contender.name: Times() for contender in contenders}
    order, rng = list(contenders), random.Random(0)
    samples = list(x)
    for contender in order:
        # The first calls of any runtime allocate, specialise and fill caches.
        _round(contender, x, samples, Times(), sequence_calls, clock)
    with no_collector():
        for k in range(rounds):
            if progress is not None:
                progress(f"round {k + 1} of {rounds}")
            rng.shuffle(order)
            for contender in order:
                _round(contender, x, samples, times[contender.name], sequence_calls, clock)
    return times


def _round(
    contender: Contender,
    x: np.ndarray[Any, Any],
    samples: list[np.ndarray[Any, Any]],
    times: Times,
    sequence_calls: int,
    clock: Clock,
) -> None:
    contender.reset()
    call = contender.call
    if contender.mode == SEQUENCE:
        calls = []
        for _ in range(sequence_calls):
            start = clock()
            call(x)
            end = clock()
            calls.append((end - start) / len(x))
        times.rounds.append(sum(calls) / len(calls))
        times.calls += calls
        return
    assert contender.mode == STEP
    start = clock()
    for sample in samples:
        call(sample)
    end = clock()
    times.rounds.append((end - start) / len(samples))
    for sample in samples[:SINGLE_CALLS]:
        start = clock()
        call(sample)
        end = clock()
        times.calls.append(end - start)


def about(tell: Callable[[str], None], what: str) -> Callable[[str], None]:
    """`tell`, with what is being timed before the words."""
    return lambda words: tell(f"{what}, {words}")


def ratios(times: Times, ours: Times) -> list[float]:
    """Time over ours, round by round."""
    return [a / b for a, b in zip(times.rounds, ours.rounds, strict=True)]
