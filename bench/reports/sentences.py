"""What every report says in words: who is faster than ours, on what machine, and by what method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import wording
from .selection import coarse, confidence, even, faster, not_timed, rivals, rounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .document import Document, ModeInfo, Row


def losses(document: Document, mode: ModeInfo) -> str:
    """Every rival that is faster than ours in a mode, by how much, or that none is."""
    found = faster(document, _timed(document, mode))
    if not found:
        return "Faster than ours: none."
    return f"Faster than ours: {_listed(document, found)}."


def draws(document: Document, mode: ModeInfo) -> str:
    """Every rival whose interval holds one, so that which is faster is not known; may be empty."""
    timed = _timed(document, mode)
    unsure = [row for row in faster(document, timed) if row.ratio and row.ratio.high >= 1]
    found = [*unsure, *even(document, timed)]
    if not found:
        return ""
    names = ", ".join(f"{row.contender} on {row.model}" for row in found)
    return f"Not told apart from ours (the interval holds 1): {names}."


def standing(document: Document, mode: ModeInfo) -> str:
    """On how many models ours is the fastest, of how many it was timed on with a rival."""
    models = []
    for model in document.models:
        rows = [row for row in _timed(document, mode) if row.model == model.name]
        if rivals(document, rows):
            models.append(not faster(document, rows))
    if not models:
        return "There was no rival to time."
    names = {row.contender for row in rivals(document, _timed(document, mode))}
    count = f"{len(names)} rival" + "s" * (len(names) != 1)
    if len(models) == 1:
        return f"{mode.ours} is {'' if models[0] else 'not '}the fastest beside {count}."
    return f"{mode.ours} is the fastest on {sum(models)} of {len(models)} models beside {count}."


def _timed(document: Document, mode: ModeInfo) -> list[Row]:
    return [row for row in document.rows if row.mode == mode.name and row.ns is not None]


def _listed(document: Document, rows: Sequence[Row]) -> str:
    """Contenders with their models, ratios and intervals."""
    found: dict[str, list[str]] = {}
    for row in rows:
        assert row.ratio is not None
        spread = wording.interval_of(row.ratio, wording.times)
        words = f"{wording.times(row.ratio.value)}" + (f", {spread}" if spread else "")
        found.setdefault(row.contender, []).append(f"{row.model} ({words})")
    listed = []
    for name, models in found.items():
        held = coarse(document, name)
        note = f", whose {held} weights give other numbers," if held else ""
        listed.append(f"{name}{note} on {', '.join(models)}")
    return "; ".join(listed)


def refusals(document: Document, mode: ModeInfo) -> list[str]:
    """Who was not timed in a mode, on which models, and why; a line for each reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in not_timed(document, mode.name):
        found.setdefault((row.contender, row.note or "not timed"), []).append(row.model)
    return [f"{who} on {', '.join(models)}: {why}" for (who, why), models in found.items()]


def quiet(document: Document) -> str:
    """How quiet the machine was, in one sentence."""
    noise = document.noise
    loads = [
        f"load {load:.2f} {when}"
        for load, when in ((noise.load_before, "before"), (noise.load_after, "after"))
        if load is not None
    ]
    slowed = f"a fixed loop took up to {wording.share(noise.calibration_worst)} longer"
    took = [] if noise.stolen is None else [f"{wording.share(noise.stolen)} of the CPU time stolen"]
    return f"Noise: {', '.join([*loads, slowed, *took])}."


def sampling(document: Document) -> str:
    """How many rounds there were, and what the intervals are."""
    count = rounds(document)
    held = f"{100 * confidence(document):.3g} %"
    return (
        f"Figures are medians over {count:,} interleaved round{'s' * (count != 1)}; "
        f"ratios are taken within a round; intervals hold the median with {held} confidence."
    )


def machine(document: Document) -> str:
    """The processor and the system, in a line."""
    known = document.machine
    cores = known.get("cores")
    facts = (
        known.get("processor"),
        f"{cores} core{'s' * (cores != 1)}" if cores else None,
        known.get("system"),
        f"Python {known['python']}" if known.get("python") else None,
    )
    return ", ".join(str(fact) for fact in facts if fact)


def versions(document: Document) -> str:
    """The versions of all libraries; empty where none is known."""
    found = document.machine.get("versions") or {}
    listed = [f"{name} {version}" for name, version in found.items() if version]
    return f"Versions: {', '.join(listed)}." if listed else ""


def method(document: Document) -> list[str]:
    """How the figures came about, for a reader who trusts nobody."""
    return [
        "The session that is timed is the very one whose outputs were compared with the float64 "
        "reference before. Who differs by more than its bound is refused, not timed.",
        f"{sampling(document)} So a change of the machine's speed meets all contenders alike.",
        "Percentiles are of single calls, and only those that so many calls support. Scheduled "
        "calls are timed from when they were due, so a stall is seen by all that had to wait.",
        "Contenders of fewer bits than float32 compute another network's numbers. They are timed, "
        "and marked.",
        "Only loading the weights is no contender: it is what a step takes at least that reads "
        "every weight once.",
    ]
