"""A layer's step beside the time that only loading its weights takes, over hidden sizes.

Both loop over the very same memory, in one process, in interleaved rounds. What a step costs above
the floor is arithmetic that loads do not hide; below the floor it reuses what is still in cache.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import reference
from fastlstm.stream import Stream

from .. import machine
from ..goals.contenders import SEQUENCE, Contender, our_contender
from ..goals.timing import Clock, Times, about, measure, ratios
from ..models import plain_model
from .load_only import BACK_AND_FORTH, FORWARD, Way, load_only

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from fastlstm.model import Model

SCHEMA = "fastlstm-roofline-1"
SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
# The loop is timed by one call from Python, so it is long enough that this call does not count:
# at least this many steps, and for small layers as many as read this many bytes.
LEAST_STEPS, MOST_STEPS, ENOUGH_BYTES = 1000, 20_000, 1 << 28


@dataclass(frozen=True)
class Row:
    """One size. Times are nanoseconds a step, medians of the rounds; so is the ratio."""

    hidden: int
    weights_bytes: int
    steps: int
    step_ns: float
    load_ns: float  # the fastest way to read forward
    way: str  # ... and which it was
    ratio: float  # step over load, taken within each round
    ways_ns: dict[str, float]  # every way that was tried, the one that turns back too
    error: float  # greatest, over the check's steps


@dataclass(frozen=True)
class Roofline:
    """The rows of one kind of layer, and what they were measured on."""

    cell: str
    rows: tuple[Row, ...]
    machine: dict[str, Any]
    rounds: int

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, for JSON."""
        return {"schema": SCHEMA, **asdict(self)}


def measure_roofline(
    sizes: Sequence[int] = SIZES,
    cell: str = "LSTM",
    *,
    rounds: int = 15,
    least_steps: int = LEAST_STEPS,
    most_steps: int = MOST_STEPS,
    clock: Clock = perf_counter_ns,
    progress: Callable[[str], None] | None = None,
) -> Roofline:
    """Time a bare layer of one input, and load-only loops over its weights, at each size.

    A layer whose numbers are not the reference's raises ArithmeticError: it is not timed.
    """
    tell = progress or (lambda words: None)
    before = machine.describe()
    rows = []
    for hidden in sizes:
        model = plain_model(cell, hidden, outputs=None)
        ours, error = our_contender(model, SEQUENCE)
        weights = weights_of(model)
        steps = long_enough(weights, least_steps, most_steps)
        times = measure(
            [ours, *loaders(weights)],
            reference.check_input(model, steps, seed=2),
            rounds,
            sequence_calls=1,
            clock=clock,
            progress=about(tell, f"{cell} {hidden}"),
        )
        rows.append(_row(hidden, weights.nbytes, steps, times, ours.name, error))
    return Roofline(cell, tuple(rows), before, rounds)


def long_enough(
    weights: np.ndarray[Any, Any], least: int = LEAST_STEPS, most: int = MOST_STEPS
) -> int:
    """Steps of one timed call: see LEAST_STEPS."""
    return min(max(least, ENOUGH_BYTES // weights.nbytes), most)


def weights_of(model: Model) -> np.ndarray[Any, Any]:
    """The packed weights that a stream of this model reads: the memory itself, no copy."""
    return Stream(model)._code.weights


def loaders(weights: np.ndarray[Any, Any]) -> list[Contender]:
    """Every way of loading `weights`, once for each time step of what it is given."""
    return [
        Contender(way.name, SEQUENCE, partial(_load, way, weights), lambda: None)
        for way in (*FORWARD, BACK_AND_FORTH)
    ]


def _load(way: Way, weights: np.ndarray[Any, Any], x: np.ndarray[Any, Any]) -> float:
    return load_only(way, weights, len(x))


def floor(times: Mapping[str, Times]) -> tuple[str, Times]:
    """The fastest way to read forward, and its times."""
    name = min((way.name for way in FORWARD), key=lambda name: times[name].median_ns)
    return name, times[name]


def _row(
    hidden: int, size: int, steps: int, times: Mapping[str, Times], ours: str, error: float
) -> Row:
    way, load = floor(times)
    return Row(
        hidden,
        size,
        steps,
        times[ours].median_ns,
        load.median_ns,
        way,
        float(np.median(ratios(times[ours], load))),
        {name: found.median_ns for name, found in times.items() if name != ours},
        error,
    )


def draw(result: Roofline, path: Path) -> None:
    """Write figure_of(result) as a picture."""
    figure_of(result).savefig(path, dpi=120)


def figure_of(result: Roofline) -> Figure:
    """Both times over the hidden size, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    sizes = [row.hidden for row in result.rows]
    axes.plot(sizes, [row.step_ns for row in result.rows], "o-", label=f"one {result.cell} step")
    axes.plot(
        sizes,
        [row.load_ns for row in result.rows],
        "s--",
        label="loading its weights, in order, and nothing else",
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("hidden size")
    axes.set_ylabel("nanoseconds a time step")
    axes.set_title(f"{result.cell}, one input, one stream, one thread")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
