"""From what a contender's turns took to its row: medians, ratios, percentiles, deadlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..reports.document import Deadline, Estimate, Row
from .histogram import latency_of
from .modes import PERIODIC, POISSON, Mode
from .statistics import median_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .admission import Verdict
    from .driver import Taken
    from .rounds import Taking

# A contender is behind for good where the last tenth of a turn's calls come so many periods later
# than the first tenth: a short stall is made up for, a rate that is too high never is.
BEHIND = 5.0


def row_of(
    key: tuple[str, str],
    contender: str,
    mode: Mode,
    verdict: Verdict,
    taking: Taking | None,
    ours: Taking | None,
    *,
    tail: bool = True,
) -> Row:
    """The row of one contender; `ours` is what its ratio is taken to, where that was timed.

    `tail` is False for what has no single calls of interest.
    """
    model, name = key
    about: dict[str, Any] = {"model": model, "mode": name, "contender": contender}
    if verdict.reason or taking is None or taking.failure or not taking.rounds:
        note = verdict.reason or f"failed: {taking.failure if taking else 'it was not timed'}"
        return Row(**about, error=verdict.error, bound=verdict.bound, note=note)
    times = {number: _figure(taken, mode) for number, taken in taking.rounds.items()}
    turns = list(taking.rounds.values())
    return Row(
        **about,
        ns=_estimate(list(times.values())),
        ratio=_ratio(times, ours, mode),
        rounds_ns=tuple(float(f"{ns:.6g}") for ns in times.values()),
        latency=latency_of([taken.calls_ns for taken in turns]) if tail else None,
        deadline=deadline_of(turns, mode),
        times_real_time=times_real_time(turns, mode),
        error=verdict.error,
        bound=verdict.bound,
    )


def _figure(taken: Taken, mode: Mode) -> float:
    """Nanoseconds a time step, or of a whole scheduled call."""
    return taken.step_ns * (mode.block if mode.kind in (PERIODIC, POISSON) else 1)


def _estimate(values: Sequence[float]) -> Estimate:
    value, low, high = median_interval(values)
    return Estimate(value=value, low=low, high=high)


def _ratio(times: Mapping[int, float], ours: Taking | None, mode: Mode) -> Estimate | None:
    """Over ours, in the rounds that both took part in."""
    if ours is None or ours.failure:
        return None
    common = [number for number in times if number in ours.rounds]
    if not common:
        return None
    return _estimate([times[n] / _figure(ours.rounds[n], mode) for n in common])


def deadline_of(turns: Sequence[Taken], mode: Mode) -> Deadline | None:
    """How many scheduled calls were done later than one (mean) period after they were due."""
    if mode.kind not in (PERIODIC, POISSON):
        return None
    period = 1e9 / mode.calls_hz
    calls = np.concatenate([taken.calls_ns for taken in turns])
    return Deadline(
        period_ns=period,
        missed=int((calls > period).sum()),
        calls=len(calls),
        # One turn may end in a stall of the machine; not most of them.
        overrun=2 * sum(_behind(taken, mode, period) for taken in turns) > len(turns),
    )


def _behind(taken: Taken, mode: Mode, period: float) -> bool:
    calls = taken.calls_ns
    tenth = max(1, len(calls) // 10)
    grown = float(np.median(calls[-tenth:]) - np.median(calls[:tenth]))
    return len(calls) < mode.calls or grown > BEHIND * period


def times_real_time(turns: Sequence[Taken], mode: Mode) -> float | None:
    """The declared time of a call over the time that it takes.

    Of a contender that is behind the time that it takes is that from one call to the next, because
    then it is never idle.
    """
    if mode.rate_hz is None:
        return None
    period = 1e9 / mode.calls_hz
    found = []
    for taken in turns:
        calls = taken.calls_ns
        if mode.kind == PERIODIC and _behind(taken, mode, period):
            # Call k was done at k periods and its latency.
            took = period + (float(calls[-1]) - float(calls[0])) / max(1, len(calls) - 1)
        else:
            took = float(np.median(calls)) if mode.kind in (PERIODIC, POISSON) else taken.step_ns
        found.append(period / took)
    return float(np.median(found))
