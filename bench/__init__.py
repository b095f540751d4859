"""Time every road of this machine side by side: one thread, state carried, correctness first.

Nothing imports this package but the command line; it may import anything.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import reference
from fastlstm.roads import ROADS, Road
from fastlstm.verify import truth

from . import machine
from .contenders import OURS, Contender, checked, mode_of, one_thread, refusal
from .models import lstm_models
from .timing import Times, about, measure, ratios

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastlstm.model import Model

SCHEMA = "fastlstm-bench-1"
CHECK_STEPS = 300
TIMED = tuple(road for road in ROADS if road.timed)


@dataclass(frozen=True)
class Row:
    """One contender on one model. Times are nanoseconds a step; ratio is time over ours.

    Where `note` is set the contender was not timed, and it says why.
    """

    model: str
    mode: str
    contender: str
    median_ns: float | None = None
    p99_ns: float | None = None
    samples: int = 0
    ratio: float | None = None
    error: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Result:
    """All rows, fastest first within each model and mode, and what they were measured on."""

    rows: tuple[Row, ...]
    machine: dict[str, Any]
    rounds: int
    steps: int

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, for JSON."""
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "rounds": self.rounds,
            "steps": self.steps,
            "rows": [asdict(row) for row in self.rows],
        }


def compare(
    models: Mapping[str, Model],
    *,
    rounds: int = 15,
    steps: int = 1000,
    roads: Sequence[Road] = TIMED,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Time `roads` on each model: `rounds` interleaved rounds of `steps` steps, on one thread.

    A road that is not installed, or whose numbers are not the reference's, is a row with a note
    instead of times. Our own stream must be among the roads: the ratios are taken to it.
    """
    tell = progress or (lambda words: None)
    rows: list[Row] = []
    before = machine.describe()
    with one_thread():
        for name, model in models.items():
            rows += _rows(name, model, rounds, steps, roads, tell)
    return Result(tuple(rows), before, rounds, steps)


def _rows(
    name: str,
    model: Model,
    rounds: int,
    steps: int,
    roads: Sequence[Road],
    tell: Callable[[str], None],
) -> list[Row]:
    true = truth(model, reference.check_input(model, CHECK_STEPS, seed=1))
    timed: list[Contender] = []
    rows, errors = [], {}
    for road in roads:
        tell(f"{name}: checking {road.name}")
        contender, verdict = checked(road, model, true)
        if contender is not None:
            timed.append(contender)
            errors[road.name] = verdict.max_abs_error
        else:
            rows.append(Row(name, mode_of(road), road.name, note=refusal(verdict)))
    x = reference.check_input(model, steps, seed=2)
    for mode, ours in OURS.items():
        group = [contender for contender in timed if contender.mode == mode]
        if ours not in [contender.name for contender in group]:
            rows += [Row(name, mode, c.name, note=f"not timed without {ours}") for c in group]
            continue
        times = measure(group, x, rounds, progress=about(tell, f"{name}: {mode}"))
        found = [_row(name, mode, c, times[c.name], times[ours], errors) for c in group]
        rows += sorted(found, key=lambda row: row.median_ns or 0)
    return rows


def _row(
    model: str, mode: str, contender: Contender, times: Times, ours: Times, errors: dict[str, float]
) -> Row:
    return Row(
        model,
        mode,
        contender.name,
        times.median_ns,
        times.p99_ns,
        len(times.calls),
        float(np.median(ratios(times, ours))),
        errors[contender.name],
    )


__all__ = ["Result", "Row", "compare", "lstm_models"]
