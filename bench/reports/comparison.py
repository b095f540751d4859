"""A Comparison as rich tables and as Markdown: warnings before all, then what moved, most first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from . import wording
from .compare import START_ESTIMATES
from .facts import SECOND_NS
from .markdown import bullets, cell, titled
from .tables import MOVED, Cell, Table, duration_cell, figure_cell
from .terminal import draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from .compare import Comparison, Move
    from .document import Estimate

VERDICTS = {True: "moved", False: "within noise", None: "no interval"}


def to_terminal(comparison: Comparison) -> Group:
    """Rich tables of at most 100 columns: what moved, and how much did not."""
    parts: list[RenderableType] = [
        Text(f"Warning: {warning}", style="yellow") for warning in comparison.warnings
    ]
    if parts:
        parts.append(Text())
    parts += [Text(line) for line in summary(comparison)]
    parts.append(Text())
    for title, moves in _parts(comparison):
        shown = [move for move in moves if move.moved or (move.moved is None and move.change != 1)]
        rest = len(moves) - len(shown)
        notes = (f"{rest:,} other{'s' * (rest != 1)} within noise, or the same",) if rest else ()
        parts.append(draw(_table(title, shown, notes)))
    parts += [Text(line) for line in _only(comparison)]
    return Group(*parts)


def to_markdown(comparison: Comparison) -> str:
    """All figures as a page of Markdown."""
    parts = [
        "# fastlstm bench: A and B",
        bullets(f"**Warning**: {cell(one)}" for one in comparison.warnings),
        bullets(map(cell, summary(comparison))),
        *(titled(_table(title, moves)) for title, moves in _parts(comparison)),
        bullets(map(cell, _only(comparison))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(comparison: Comparison) -> list[str]:
    """How much was compared, how much moved, and how much would have by chance."""
    lines = []
    for title, moves in _parts(comparison):
        judged = [move for move in moves if move.moved is not None]
        if judged:
            moved, chance = sum(bool(move.moved) for move in judged), comparison.chance
            lines.append(
                f"{title.partition(';')[0]}: {len(judged):,} have an interval in both; {moved:,} "
                f"moved, where by chance alone about {chance * len(judged):.1f} would have."
            )
    lines += [
        "A figure moved where its interval in A and its interval in B do not overlap. The "
        "intervals are of the rounds within one run: measure again before you believe a change.",
    ]
    if comparison.drift is not None:
        lines.append(
            f"The median of the others' times changed by {wording.change(comparison.drift)}: about "
            "so much is the machine's, and ratios do not see it."
        )
    return lines


def _parts(comparison: Comparison) -> list[tuple[str, Sequence[Move]]]:
    found = (
        ("Times ours; where a ratio falls we lose ground", comparison.ratios),
        ("Times", comparison.times),
        ("From the start of a process", comparison.starts),
    )
    return [(title, moves) for title, moves in found if moves]


def _only(comparison: Comparison) -> list[str]:
    both = (("A", comparison.only_a), ("B", comparison.only_b))
    return [f"Only in {letter}: {name}" for letter, names in both for name in names]


def _table(title: str, moves: Sequence[Move], notes: tuple[str, ...] = ()) -> Table:
    starts = any(not move.mode for move in moves)
    # Where all have moved, no column has to say so.
    judged = any(not move.moved for move in moves)
    rows = []
    for move in moves:
        tone = MOVED if move.moved else ""
        verdict = VERDICTS[move.moved]
        if move.moved is None and move.change == 1:
            verdict = "the same"
        line = (
            Cell(move.contender),
            Cell(move.model),
            Cell(move.what if starts else move.mode),
            _figure(move.what, move.a),
            _figure(move.what, move.b),
            Cell(wording.change(move.change), tone=tone),
            Cell(verdict, tone=tone),
        )
        rows.append(line if judged else line[:-1])
    header = ("contender", "model", "figure" if starts else "mode", "A", "B", "change", "verdict")
    return Table(
        title, header if judged else header[:-1], tuple(rows), frozenset({0, 1, 2, 6}), notes
    )


def _figure(what: str, estimate: Estimate) -> Cell:
    if what == "ratio":
        return figure_cell(estimate)
    if what in START_ESTIMATES.values():
        return duration_cell(estimate, SECOND_NS)
    if what in ("time", "first call", "a step after"):
        return duration_cell(estimate)
    if what == "allocations a step":
        return Cell(f"{estimate.value:,.3g}")
    return Cell(wording.size(estimate.value))
