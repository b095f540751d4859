"""How far any road is from the float64 reference. Holds the only tolerance table.

It takes callables, so it can judge any road; the roads of this machine are listed in roads.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm import reference
from fastlstm.errors import UnsupportedError

if TYPE_CHECKING:
    from fastlstm.model import Model
    from fastlstm.roads import Road

Floats: TypeAlias = NDArray[np.floating[Any]]
# Outputs (time, output_size) and final state vectors, in the order of Model.states, for x
# (time, input_size) float32 from the model's initial state.
Run: TypeAlias = Callable[[NDArray[np.float32]], tuple[Floats, Sequence[Floats]]]

# The tolerance table. Loosening a line is a line in CHANGELOG.md.
#
# A float32 road may stray this many times as far from the reference as plain float32 arithmetic
# does on the same stream: two orders of summation and two tanh of 1 to 2 ulp each are not equal,
# but a swapped gate or a lost bias is thousands of times further away.
FACTOR = 2.0
# ... plus this much, for streams so short or tame that plain float32 happens to be almost exact
# on them: about 16 roundings of a value of 1. Greater outputs need no more, because what they are
# rounded by is in the distance of plain float32 itself.
FLOOR = 1e-6
# How far plain float32 strays at its worst shows over many steps; in few, or at the one moment that
# is the end of a stream, it may happen to be almost exact. So a road that leaves the bound of one
# stream is held to the greatest that one stream of so many steps has, whole or in parts of PART,
# each with an end of its own.
YARDSTICK_STEPS, PART = 4096, 64
# Weights held in fewer bits are another network, which no bound of float32 fits. The relative L2
# error of such a road may be this much, which only says that it is not broken: on a network whose
# outputs hardly vary a swapped gate may hide in it. So what is rounded must be right before it is.
REDUCED = {"int8": 0.05}


@dataclass(frozen=True)
class Truth:
    """One stream, what the reference makes of it, and how far a float32 road may be from that."""

    x: NDArray[np.float32]  # (time, input_size)
    output: Floats  # (time, output_size) float64
    state: tuple[Floats, ...]  # float64, in the order of Model.states
    bound: float  # greatest absolute error allowed in the output
    state_bound: float  # ... and in the final state


@dataclass(frozen=True)
class Row:
    """One road's verdict, with the reason in `note` where there is one.

    "ok", "wrong", "missing" (a library is not installed), "unsupported" (the road has no means to
    express this model) or "failed".
    """

    road: str
    verdict: str
    steps: int = 0
    max_abs_error: float = float("nan")
    relative_l2: float = float("nan")
    bound: float = float("nan")
    state_error: float = float("nan")
    state_bound: float = float("nan")
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Every road's row. `ok` is True when at least one road ran and none was wrong or failed.

    A road that is missing or cannot express the model proves nothing, for or against it.
    """

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        verdicts = {row.verdict for row in self.rows}
        return "ok" in verdicts and not verdicts & {"wrong", "failed"}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON; figures that were not measured are None."""
        rows = [
            {k: None if isinstance(v, float) and v != v else v for k, v in asdict(row).items()}
            for row in self.rows
        ]
        return {"ok": self.ok, "rows": rows}

    def __str__(self) -> str:
        header = ("road", "steps", "max error", "relative L2", "bound", "state error", "verdict")
        lines = [header, *map(_cells, self.rows)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if k in (0, 6) else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def _cells(row: Row) -> tuple[str, ...]:
    def figure(value: float) -> str:
        return "-" if value != value else f"{value:.2e}"

    return (
        row.road,
        str(row.steps) if row.steps else "-",
        figure(row.max_abs_error),
        figure(row.relative_l2),
        figure(row.bound),
        figure(row.state_error),
        f"{row.verdict}: {row.note}" if row.note else row.verdict,
    )


def truth(model: Model, x: NDArray[np.float32]) -> Truth:
    """The reference over x, with the bound that a float32 road must keep on it."""
    exact = reference.run_with_state(model, x)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        single = reference.run_with_state(model, x, np.float32)
    bound = FACTOR * _distance(single.output, exact.output) + FLOOR
    states = zip(single.state, exact.state, strict=True)
    state_bound = max(
        (FACTOR * _distance(found, true) + FLOOR for found, true in states),
        default=FLOOR,
    )
    return Truth(x, exact.output, exact.state, bound, state_bound)


class Yardstick:
    """The bounds of one model over many steps and many ends; worked out when first asked for."""

    def __init__(self, model: Model) -> None:
        """Of `model`; costs nothing yet."""
        self.model = model

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """Greatest absolute error allowed in an output and in a final state, at any moment."""
        x = reference.check_input(self.model, YARDSTICK_STEPS)
        parts = (x, *np.split(x, YARDSTICK_STEPS // PART))
        found = [truth(self.model, part) for part in parts]
        return max(t.bound for t in found), max(t.state_bound for t in found)


def judge(road: str, run: Run, true: Truth, yardstick: Yardstick | None = None) -> Row:
    """Run one road over the stream of `true` and compare its outputs and its final state.

    With a `yardstick`, a road that is beyond the bounds of this stream is held to those of many.
    """
    output, state = run(true.x)
    if np.shape(output) != true.output.shape or len(state) != len(true.state):
        return Row(
            road,
            "wrong",
            len(true.x),
            note=f"expected outputs {true.output.shape} and {len(true.state)} state vectors, "
            f"found {np.shape(output)} and {len(state)}",
        )
    error = _distance(output, true.output)
    state_error = max(
        (_distance(f, t) for f, t in zip(state, true.state, strict=True)), default=0.0
    )
    beyond = not (error <= true.bound and state_error <= true.state_bound)
    if beyond and yardstick is not None:
        bound, state_bound = yardstick.bounds
        true = replace(
            true,
            bound=max(true.bound, bound),
            state_bound=max(true.state_bound, state_bound),
        )
    norm = float(np.linalg.norm(true.output))
    relative = float(np.linalg.norm(np.asarray(output, np.float64) - true.output)) / (norm or 1.0)
    # Where plain float32 overflows, so does the bound, which any road would then keep.
    finite = true.bound < np.inf and true.state_bound < np.inf
    # Written so that a NaN anywhere is "wrong".
    good = finite and error <= true.bound and state_error <= true.state_bound
    return Row(
        road,
        "ok" if good else "wrong",
        len(true.x),
        error,
        relative,
        true.bound,
        state_error,
        true.state_bound,
        "" if finite else "the network overflows float32 on this stream",
    )


def verify(
    model: Model,
    *,
    steps: int = 10_000,
    seed: int = 0,
    roads: Iterable[Road] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Run every road that this machine has over one long random stream, against the reference.

    `steps` and `seed` make the stream (reference.check_input); `roads` replaces the list of
    roads.py; `progress` is called with each road's name before it runs. A road whose library is
    not installed is a row with the verdict "missing", one that cannot express the model is
    "unsupported". Never raises for a road that fails; ValueError for less than one step.
    """
    if steps < 1:
        raise ValueError(f"verify: expected at least one step, found {steps}")
    if roads is None:
        # Imported here because roads.py knows every runtime and this file only judges.
        from fastlstm.roads import ROADS

        roads = ROADS
    true = truth(model, reference.check_input(model, steps, seed))
    yardstick = Yardstick(model)
    rows = []
    for road in roads:
        if progress is not None:
            progress(road.name)
        rows.append(try_road(road, model, true, yardstick))
    return Report(tuple(rows))


def try_road(road: Road, model: Model, true: Truth, yardstick: Yardstick | None = None) -> Row:
    """Open a road and judge it; what it lacks or raises becomes its verdict, never an error."""
    if missing := road.missing():
        return Row(road.name, "missing", note=missing)
    try:
        return judge(road.name, road.prepare(model), true, yardstick)
    except UnsupportedError as error:
        return Row(road.name, "unsupported", note=" ".join(str(error).split()))
    except Exception as error:  # a foreign runtime may raise anything; the table must go on
        return Row(road.name, "failed", note=f"{type(error).__name__}: {error}".splitlines()[0])


def _distance(found: Any, true: Floats) -> float:
    if np.shape(found) != true.shape:
        return float("inf")
    return float(np.abs(np.asarray(found, np.float64) - true).max(initial=0))
