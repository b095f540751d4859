"""Which rows of a Document stand where: sorted, lost, refused, and the ladders of hidden sizes."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from ..timing.statistics import coverage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .document import ContenderInfo, Document, ModeInfo, ModelInfo, Row


def rows_of(document: Document, model: str, mode: str) -> list[Row]:
    """The rows of one model and mode: the fastest first, what was not timed last."""
    found = [row for row in document.rows if (row.model, row.mode) == (model, mode)]
    return sorted(found, key=lambda row: (row.ns is None, row.ns.value if row.ns else 0.0))


def pairs(document: Document) -> list[tuple[ModelInfo, ModeInfo]]:
    """Each model with each mode it has a row in, as the document orders them."""
    there = {(row.model, row.mode) for row in document.rows}
    return [
        (model, mode)
        for model in document.models
        for mode in document.modes
        if (model.name, mode.name) in there
    ]


def info(document: Document, name: str) -> ContenderInfo | None:
    """The contender of that name; None where the document does not describe it."""
    return next((one for one in document.contenders if one.name == name), None)


def ours(document: Document, name: str) -> bool:
    """Whether a contender is our own runtime."""
    found = info(document, name)
    return found is not None and found.ours


def floor(document: Document, name: str) -> bool:
    """Whether it is no contender, but only loads the weights."""
    found = info(document, name)
    return found is not None and found.floor


def precision(document: Document, name: str) -> str:
    """What the weights are held in; nothing for the usual float32."""
    found = info(document, name)
    return found.precision if found is not None and found.precision != "float32" else ""


def coarse(document: Document, name: str) -> str:
    """The same where it is less than float32, so that the numbers are another network's."""
    held = precision(document, name)
    return "" if held == "float64" else held


def rivals(document: Document, rows: Iterable[Row]) -> list[Row]:
    """The timed rows that are neither ours nor the floor, and have a ratio."""
    return [
        row
        for row in rows
        if row.ratio is not None
        and not ours(document, row.contender)
        and not floor(document, row.contender)
    ]


def faster(document: Document, rows: Iterable[Row]) -> list[Row]:
    """The rivals whose ratio is below one, whatever the interval says; the greatest loss first."""
    found = [row for row in rivals(document, rows) if row.ratio and row.ratio.value < 1]
    return sorted(found, key=lambda row: row.ratio.value if row.ratio else 1.0)


def even(document: Document, rows: Iterable[Row]) -> list[Row]:
    """The rivals that are not faster, but whose interval reaches down to one."""
    return [
        row for row in rivals(document, rows) if row.ratio and row.ratio.low <= 1 <= row.ratio.value
    ]


def not_timed(document: Document, mode: str | None = None) -> list[Row]:
    """The rows with a note and no time, of one mode or of all."""
    return [row for row in document.rows if row.ns is None and mode in (None, row.mode)]


def rounds(document: Document) -> int:
    """The most rounds that any row has."""
    return max((len(row.rounds_ns) for row in document.rows), default=0)


def confidence(document: Document) -> float:
    """How sure the intervals of medians are: of few rounds they are the whole range, and less."""
    return min(document.confidence, max(0.0, coverage(rounds(document))))


def ladders(document: Document) -> dict[str, list[ModelInfo]]:
    """The plain models that differ in their hidden size only, by what their names share.

    Each list rises by hidden size. Models without one, and one that stands alone, are left out.
    """
    found: dict[str, list[ModelInfo]] = {}
    for model in document.models:
        if model.hidden is not None:
            found.setdefault(_stem(model), []).append(model)
    return {
        stem: sorted(models, key=lambda model: model.hidden or 0)
        for stem, models in found.items()
        if len({model.hidden for model in models}) > 1
    }


def ladders_of(document: Document, mode: ModeInfo) -> dict[str, list[ModelInfo]]:
    """The ladders that have a row in a mode."""
    there = {row.model for row in document.rows if row.mode == mode.name}
    return {
        stem: models
        for stem, models in ladders(document).items()
        if any(model.name in there for model in models)
    }


def _stem(model: ModelInfo) -> str:
    """`LSTM 1x` of `LSTM 1x8`, read as `LSTM 1x...`; the layers where a name has no size."""
    stem = model.name.removesuffix(str(model.hidden))
    return stem if stem != model.name else model.layers


def ladder_title(stem: str) -> str:
    """How a ladder is called: `LSTM 1xH`."""
    return f"{stem}H" if stem.endswith("x") else stem


def on_ladder(
    document: Document, models: Sequence[ModelInfo], mode: ModeInfo
) -> dict[str, dict[int, Row]]:
    """Rows by contender and hidden size; ours first, then the fastest, refused and floor last."""
    sizes = {model.name: model.hidden for model in models}
    found: dict[str, dict[int, Row]] = {}
    for row in document.rows:
        hidden = sizes.get(row.model)
        if row.mode == mode.name and hidden is not None:
            found.setdefault(row.contender, {})[hidden] = row

    def order(name: str) -> tuple[bool, bool, bool, float]:
        ratios = [row.ratio.value for row in found[name].values() if row.ratio is not None]
        return (
            floor(document, name),
            name != mode.ours,
            not ratios,
            median(ratios) if ratios else 0.0,
        )

    return {name: found[name] for name in sorted(found, key=order)}
