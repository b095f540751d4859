"""The tables of timings before they are drawn: cells of text that every report shares.

They format figures and compute none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from . import wording
from .selection import faster, floor, ladder_title, on_ladder, ours, precision, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .document import Document, Estimate, Latency, ModeInfo, ModelInfo, Percentile, Row

# What a cell says beside its text; each report shows it in its own way.
OURS, FASTER, FLOOR, UNTIMED, LATE = "ours", "faster", "floor", "untimed", "late"
MOVED = "moved"
# How the note of a row begins that was not timed.
REASONS = ("refused", "unsupported", "missing", "failed")
PERCENTS = (50.0, 90.0, 99.0, 99.9)


class Cell(NamedTuple):
    """A figure or words, the interval behind it, what is special, and the number of a note."""

    text: str
    detail: str = ""
    tone: str = ""
    note: str = ""


EMPTY = Cell(wording.NONE)


@dataclass(frozen=True)
class Table:
    """A heading for each column; those in `words` are aligned left. `notes` stand below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[int] = frozenset({0})
    notes: tuple[str, ...] = ()


def from_columns(
    title: str, columns: Mapping[str, Sequence[Cell]], notes: Sequence[str] = (), words: int = 1
) -> Table:
    """A table of columns; one that no row fills is left out. The first `words` hold words."""
    shown = {
        name: cells
        for position, (name, cells) in enumerate(columns.items())
        if position < words or any(cell.text != wording.NONE for cell in cells)
    }
    rows = tuple(zip(*shown.values(), strict=True))
    return Table(title, tuple(shown), rows, frozenset(range(words)), tuple(notes))


def of_mode(document: Document, model: ModelInfo, mode: ModeInfo) -> Table:
    """One row for each contender on a model in a mode, the fastest first; notes of the others."""
    rows = rows_of(document, model.name, mode.name)
    timed = [row for row in rows if row.ns is not None]
    columns = {
        "contender": [name_cell(document, row.contender) for row in timed],
        "median": [duration_cell(row.ns) for row in timed],
        "times ours": [ratio_cell(document, row) for row in timed],
        **{
            wording.percent(p): [_percentile_cell(row.latency, p) for row in timed]
            for p in PERCENTS
        },
        "max": [
            Cell(wording.duration(row.latency.max_ns if row.latency else None)) for row in timed
        ],
        "missed": [_missed(row) for row in timed],
        "times real time": [_real_time(row) for row in timed],
        "error": [Cell(wording.error(row.error)) for row in timed],
        "calls": [Cell(f"{row.latency.samples:,}") if row.latency else EMPTY for row in timed],
    }
    title = f"{model.name}, {mode.name}: time of a {mode.unit}"
    return from_columns(title, columns, untimed([row for row in rows if row.ns is None]))


def untimed(rows: Sequence[Row]) -> tuple[str, ...]:
    """Who was not timed, and why, a line each."""
    return tuple(f"{row.contender}: {row.note or 'not timed'}" for row in rows)


def name_cell(document: Document, name: str) -> Cell:
    """A contender, with what its weights are held in where that is not float32."""
    held = precision(document, name)
    tone = OURS if ours(document, name) else FLOOR if floor(document, name) else ""
    return Cell(f"{name} ({held})" if held and held not in name else name, tone=tone)


def duration_cell(estimate: Estimate | None, ns: float = 1.0) -> Cell:
    """A median of a time with its interval, given in units of so many nanoseconds."""
    if estimate is None:
        return EMPTY
    low, high = ns * estimate.low, ns * estimate.high
    return Cell(
        wording.duration(ns * estimate.value), "" if low == high else wording.durations(low, high)
    )


def ratio_cell(document: Document, row: Row) -> Cell:
    """Times ours, with its interval."""
    if row.ratio is None:
        return EMPTY
    lost = bool(faster(document, [row]))
    tone = OURS if ours(document, row.contender) else FASTER if lost else ""
    return figure_cell(row.ratio)._replace(tone=tone)


def figure_cell(estimate: Estimate) -> Cell:
    """A ratio with its interval."""
    return Cell(wording.times(estimate.value), wording.interval_of(estimate, wording.times))


def percentile(latency: Latency | None, percent: float) -> Percentile | None:
    """That percentile, where there were calls enough for it."""
    found = latency.percentiles if latency else ()
    return next((one for one in found if abs(one.percent - percent) < 1e-9), None)


def _percentile_cell(latency: Latency | None, percent: float) -> Cell:
    found = percentile(latency, percent)
    if found is None:
        return EMPTY
    wide = found.low != found.high
    return Cell(
        wording.duration(found.ns), wording.durations(found.low, found.high) if wide else ""
    )


def _missed(row: Row) -> Cell:
    if row.deadline is None:
        return EMPTY
    missed, calls = row.deadline.missed, row.deadline.calls
    if row.deadline.overrun:
        return Cell("overrun", f"{missed:,} of {calls:,}", LATE)
    return Cell(f"{missed:,}", f"of {calls:,}", LATE if missed else "")


def _real_time(row: Row) -> Cell:
    return EMPTY if row.times_real_time is None else Cell(wording.times(row.times_real_time))


def matrix(
    document: Document,
    stem: str,
    models: Sequence[ModelInfo],
    mode: ModeInfo,
    form: Callable[[float], str] = wording.duration,
) -> Table:
    """Contenders by hidden sizes: ours as `form` writes its time, the others as times ours.

    What was not timed carries the number of its note.
    """
    sizes = [model.hidden for model in models if model.hidden is not None]
    numbers: dict[str, int] = {}
    lines = []
    for name, by_size in on_ladder(document, models, mode).items():
        cells = [_matrix_cell(document, by_size.get(h), mode, form, numbers) for h in sizes]
        lines.append((name_cell(document, name), *cells))
    return Table(
        f"{ladder_title(stem)}, {mode.name}: our time of a {mode.unit}, the others as times ours",
        ("hidden size", *(f"{size:,}" for size in sizes)),
        tuple(lines),
        notes=tuple(f"{number}: {note}" for note, number in numbers.items()),
    )


def _matrix_cell(
    document: Document,
    row: Row | None,
    mode: ModeInfo,
    form: Callable[[float], str],
    numbers: dict[str, int],
) -> Cell:
    if row is None:
        return EMPTY
    if row.ns is None:
        # One number for each reason of each contender, however many sizes it holds for.
        (note,) = untimed([row])
        number = numbers.setdefault(note, len(numbers) + 1)
        word = row.note.partition(":")[0]
        return Cell(word if word in REASONS else "not timed", tone=UNTIMED, note=str(number))
    if row.contender == mode.ours or row.ratio is None:
        return Cell(form(row.ns.value), tone=OURS if row.contender == mode.ours else "")
    # The intervals are in the tables of each model: here they would hide the figures.
    cell = ratio_cell(document, row)._replace(detail="")
    return cell._replace(tone=FLOOR) if floor(document, row.contender) else cell
