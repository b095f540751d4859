"""Two Documents side by side: what moved by more than the intervals of both.

Ratios to ours come first: a machine that is slower today is slower for all, and a ratio does not
see it. Times are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist, median
from typing import TYPE_CHECKING, Any

from .document import Estimate
from .selection import confidence, ours, rounds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .document import Document, Row, Start

# What of a machine changes from minute to minute: no other machine.
VOLATILE = ("load_average", "load_averages", "frequency_mhz", "timer")


@dataclass(frozen=True)
class Move:
    """One figure in both documents. `change` is B over A; `moved` is whether it is beyond noise.

    `moved` is None where a figure has no interval: nothing can be said.
    """

    what: str  # "ratio", "time", or a figure of a start
    model: str
    mode: str
    contender: str
    a: Estimate
    b: Estimate
    moved: bool | None

    @property
    def change(self) -> float:
        """B over A; of two zeros 1."""
        if self.a.value == self.b.value:
            return 1.0
        return self.b.value / self.a.value if self.a.value else float("inf")


@dataclass(frozen=True)
class Comparison:
    """What moved between two documents, beyond the noise of both."""

    ratios: tuple[Move, ...]
    times: tuple[Move, ...]
    starts: tuple[Move, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    warnings: tuple[str, ...]
    confidence: tuple[float, float]
    # The median change of all times but ours: how much slower the machine of B was as a whole.
    drift: float | None

    @property
    def moved(self) -> tuple[Move, ...]:
        """What is beyond the noise."""
        return tuple(move for move in self.moves if move.moved)

    @property
    def moves(self) -> tuple[Move, ...]:
        """All figures in both documents."""
        return (*self.ratios, *self.times, *self.starts)

    @property
    def chance(self) -> float:
        """How likely two estimates of the same value have intervals that do not overlap.

        For independent normal estimates of equal spread: they would have to differ by the sum of
        two half widths. At 95 % that is 0.6 %, not 5 %.
        """
        half_widths = sum(NormalDist().inv_cdf((1 + c) / 2) for c in self.confidence)
        return 2 * (1 - NormalDist().cdf(half_widths / 2**0.5))


def compare(a: Document, b: Document) -> Comparison:
    """Each figure that is in both documents, what moved most first.

    The rule: a figure moved where its interval in A and its interval in B do not overlap; intervals
    that touch overlap. That is a strict rule for one figure, but with hundreds some differ by
    chance: see Comparison.expected. The intervals are of the rounds of one run. What differs from
    run to run, such as where memory lies, is in none of them: measure twice before you believe.
    """
    rows_a, rows_b = (_timed(document) for document in (a, b))
    both = [key for key in rows_a if key in rows_b]
    own = _same_ours(a, b)
    ratios, times = [], []
    for key in both:
        first, second = rows_a[key], rows_b[key]
        # That of ours is one by definition.
        if key[1] in own and key[2] != own[key[1]] and first.ratio and second.ratio:
            ratios.append(_move("ratio", *key, first.ratio, second.ratio))
        if first.ns and second.ns:
            times.append(_move("time", *key, first.ns, second.ns))
    others = [move.change for move in times if not ours(b, move.contender)]
    return Comparison(
        tuple(sorted(ratios, key=_order)),
        tuple(sorted(times, key=_order)),
        tuple(sorted(_starts(a, b), key=_order)),
        tuple(_only(a, rows_a, rows_b, b)),
        tuple(_only(b, rows_b, rows_a, a)),
        tuple(_warnings(a, b)),
        (confidence(a), confidence(b)),
        median(others) if others else None,
    )


def _timed(document: Document) -> dict[tuple[str, str, str], Row]:
    return {
        (row.model, row.mode, row.contender): row for row in document.rows if row.ns is not None
    }


def _move(what: str, model: str, mode: str, contender: str, a: Estimate, b: Estimate) -> Move:
    return Move(what, model, mode, contender, a, b, a.high < b.low or b.high < a.low)


def _order(move: Move) -> tuple[bool, float, str, str, str]:
    """What moved first, and of that the greatest change."""
    change = move.change
    far = max(change, 1 / change) if change else float("inf")
    return (not move.moved, -far, move.model, move.mode, move.contender)


def _same_ours(a: Document, b: Document) -> dict[str, str]:
    """What the ratios of each mode are taken to, where that is the same in both."""
    first = {mode.name: mode.ours for mode in a.modes}
    return {mode.name: mode.ours for mode in b.modes if first.get(mode.name) == mode.ours}


def _only(
    document: Document,
    rows: Mapping[tuple[str, str, str], Row],
    others: Mapping[tuple[str, str, str], Row],
    other: Document,
) -> Iterable[str]:
    """What was timed in one document only, and what the other says of it."""
    notes = {(row.model, row.mode, row.contender): row.note for row in other.rows}
    for key in rows:
        if key not in others:
            model, mode, contender = key
            why = f"; in the other not timed: {notes[key]}" if notes.get(key) else ""
            yield f"{contender} on {model}, {mode}{why}"


# The figures of a start: which have an interval, and how each is written.
START_ESTIMATES = {"cold_s": "cold start", "warm_s": "warm start"}
START_FIGURES = {
    "first_call_ns": "first call",
    "steps_ns": "a step after",
    "allocations_per_step": "allocations a step",
    "resident_bytes": "memory",
    "file_bytes": "file",
    "library_bytes": "libraries",
}


def _starts(a: Document, b: Document) -> Iterable[Move]:
    first = {(start.model, start.contender): start for start in a.starts}
    for start in b.starts:
        before = first.get((start.model, start.contender))
        if before is not None:
            yield from _start(before, start)


def _start(a: Start, b: Start) -> Iterable[Move]:
    for name, what in START_ESTIMATES.items():
        before, after = getattr(a, name), getattr(b, name)
        if before is not None and after is not None:
            yield _move(what, a.model, "", a.contender, before, after)
    for name, what in START_FIGURES.items():
        before, after = getattr(a, name), getattr(b, name)
        if before is not None and after is not None:
            one, other = (Estimate(value=v, low=v, high=v) for v in (before, after))
            yield Move(what, a.model, "", a.contender, one, other, None)


def _warnings(a: Document, b: Document) -> Iterable[str]:
    """Why the two may differ for other reasons than a change of the code."""
    yield from _differences("machine", a.machine, b.machine, VOLATILE)
    yield from _differences("settings", a.settings, b.settings, ())
    for name in ("preset", "confidence"):
        if getattr(a, name) != getattr(b, name):
            yield f"{name}: A {getattr(a, name)}, B {getattr(b, name)}"
    if rounds(a) != rounds(b):
        yield f"rounds: A {rounds(a)}, B {rounds(b)}"
    for kind in ("contenders", "models", "modes"):
        first = {one.name: one for one in getattr(a, kind)}
        for one in getattr(b, kind):
            if one.name in first and first[one.name] != one:
                old, new = first[one.name].model_dump(), one.model_dump()
                yield from _differences(one.name, old, new, ())
    for letter, document in (("A", a), ("B", b)):
        for warning in document.noise.warnings:
            yield f"noise in {letter}: {warning}"


def _differences(
    where: str, a: Mapping[str, Any], b: Mapping[str, Any], left_out: Iterable[str]
) -> Iterable[str]:
    for name in dict.fromkeys([*a, *b]):
        old, new = a.get(name), b.get(name)
        if name in left_out or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(f"{where}, {name}", old, new, ())
        else:
            yield f"{where}, {name.replace('_', ' ')}: A {_words(old)}, B {_words(new)}"


def _words(value: Any) -> str:
    return "unknown" if value is None else str(value)
