"""Vectors of one step of a loop that is written out, and what its values are made of."""

from __future__ import annotations

import numpy as np

from fastlstm.readers.elements import Trace, Vectors, Where
from fastlstm.readers.places import (
    Activated,
    Argument,
    Joined,
    Layered,
    Moment,
    Place,
    Selected,
    Sum,
)


def one_moment(trace: Trace, where: Where, origin: str) -> Vectors | None:
    """Vectors of one step of a loop written out; None where they are of several steps."""
    rows = Where(*(part.reshape(-1, part.shape[-1]) for part in where))
    heads = Where(*(part[0] for part in rows))
    for name in ("place", "time", "column"):
        if (getattr(rows, name) != getattr(heads, name)).any():
            return None
    # A constant belongs to every sequence.
    own = np.asarray([not trace.places[k].fed for k in heads.place])
    batch = rows.batch[:, own] if own.any() else rows.batch.max(-1, keepdims=True)
    if (batch != batch[:, :1]).any():
        return None
    sites = list(zip(heads.place.tolist(), heads.time.tolist(), strict=True))
    if len(set(sites)) == 1:
        place = trace.selected(trace.places[sites[0][0]], heads.column.tolist(), origin)
    else:
        runs: list[Argument] = []
        for (position, time), column in zip(sites, heads.column.tolist(), strict=True):
            columns: tuple[int, ...] = (column,)
            if runs and (runs[-1].place, runs[-1].time) == (trace.places[position], time):
                columns = (*runs.pop().columns, column)
            runs.append(Argument(trace.places[position], time, columns))
        key = ("join", *((run.place, run.time, run.columns) for run in runs))
        place = trace.place(
            ("moment", *key), lambda: Moment(len(sites), origin, "join", tuple(runs))
        )
    shape = where.place.shape[:-1]
    return Vectors(place, batch[:, 0].reshape(shape), np.zeros(shape, np.int64))


def made_of(place: Place, time: int) -> list[tuple[Place, int]]:
    """The places, and their steps, that a place's values at one step are made of."""
    match place:
        case Moment(arguments=arguments):
            return [(argument.place, argument.time) for argument in arguments]
        case Layered() if place.recurrent:
            return []
        case Layered(parent=parent) | Activated(parent=parent) | Selected(parent=parent):
            return [(parent, time)]
        case Sum(base=base, other=other):
            return [(base, time), (other, time)]
        case Joined(parts=parts):
            return [(part, time) for part in dict.fromkeys(part for part, _ in parts)]
    return []
