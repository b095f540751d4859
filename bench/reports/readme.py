"""The section of the README: a compact table a mode, every loss, and the picture beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlstm.errors import InputError

from . import plots, sentences, tables
from .markdown import bullets, cell, table
from .plot_style import svg
from .selection import ladder_title, ladders, on_ladder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .document import Document, ModeInfo, ModelInfo
    from .tables import Cell

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
PLOT = "docs/bench.svg"


def section(document: Document, plot: str = PLOT) -> str:
    """The section for a ladder's result, with a link to its picture.

    Of several ladders the first is shown. InputError where there is none.
    """
    stem, models = _ladder(document)
    modes = [mode for mode in document.modes if on_ladder(document, models, mode)]
    kept = _alternative(document, stem, models)
    parts = [f"![{cell(kept)}]({plot})", *(_mode(document, stem, models, one) for one in modes)]
    warned = [f"Noise: {one}" for one in document.noise.warnings]
    said = (
        f"Measured on {sentences.machine(document)}.",
        sentences.quiet(document),
        sentences.sampling(document),
        sentences.versions(document),
    )
    parts.append(" ".join(cell(one) for one in said if one))
    if warned:
        parts.append(bullets(map(cell, warned)))
    return "\n\n".join(parts) + "\n"


def write_plot(document: Document, path: Path) -> None:
    """Write the picture of the section, SVG: all modes of the ladder side by side."""
    stem, models = _ladder(document)
    figure = plots.overview(document, stem, models)
    path.write_text(svg(figure, _alternative(document, stem, models)), "utf-8")


def replace(text: str, section: str) -> str:
    """`text` with `section` between its two markers; InputError unless each is there once.

    The section is taken as it is: its own lines are never read as markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InputError(
            f"expected one line {BEGIN} and after it one line {END}, "
            f"found {text.count(BEGIN)} and {text.count(END)}: put both where the table belongs"
        )
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{section.strip()}\n{END}{rest.split(END)[1]}"


def _ladder(document: Document) -> tuple[str, Sequence[ModelInfo]]:
    """The first ladder of a document."""
    found = ladders(document)
    if not found:
        names = ", ".join(model.name for model in document.models)
        raise InputError(
            f"the README shows plain models of several hidden sizes, found {names or 'no model'}: "
            "give it the result of a preset that has them"
        )
    return next(iter(found.items()))


def _alternative(document: Document, stem: str, models: Sequence[ModelInfo]) -> str:
    """What the picture shows, for who cannot see it."""
    sizes = [model.hidden for model in models]
    modes = " and ".join(mode.name for mode in document.modes if on_ladder(document, models, mode))
    return (
        f"Time of {ladder_title(stem)} over hidden sizes from {sizes[0]:,} to {sizes[-1]:,}, "
        f"{modes}, a line for each contender; below them the time to only load the weights"
    )


def _mode(document: Document, stem: str, models: Sequence[ModelInfo], mode: ModeInfo) -> str:
    """The table of a mode, what its marks mean, and where we lose."""
    left_out = _left_out(document, models, mode)
    names = {name for group in left_out.values() for name in group}
    kept = tuple(r for r in document.rows if r.mode != mode.name or r.contender not in names)
    shown = document.model_copy(update={"rows": kept})
    made = tables.matrix(shown, stem, models, mode, form=_nanoseconds)
    lines = [[_cell(one) for one in row] for row in made.rows]
    parts = [
        f"**{cell(mode.name)}.** {cell(mode.meaning)} {cell(mode.ours)} in nanoseconds a "
        f"{mode.unit}, the others as times that; **bold** is faster than ours.",
        table(made.header, lines, words=[0]),
    ]
    said = [sentences.losses(document, mode), sentences.draws(document, mode)]
    parts.append(" ".join(cell(one) for one in said if one))
    if made.notes:
        parts.append(bullets(_footnote(note) for note in made.notes))
    if left_out:
        listed = "; ".join(f"{', '.join(names)} ({why})" for why, names in left_out.items())
        parts.append(cell(f"Not timed: {listed}."))
    return "\n\n".join(parts)


def _left_out(
    document: Document, models: Sequence[ModelInfo], mode: ModeInfo
) -> dict[str, list[str]]:
    """By reason, who could not be timed at any size: a row of a table would say nothing more.

    Who was refused for its numbers stays in the table.
    """
    found: dict[str, list[str]] = {}
    for name, by_size in on_ladder(document, models, mode).items():
        notes = {row.note for row in by_size.values()}
        why = min(notes)
        if len(notes) == 1 and why and not why.startswith("refused"):
            found.setdefault(why, []).append(name)
    return found


def _nanoseconds(ns: float) -> str:
    return f"{ns:,.0f} ns"


def _footnote(note: str) -> str:
    number, _, words = note.partition(": ")
    return f"<sup>{number}</sup> {cell(words)}"


def _cell(one: Cell) -> str:
    text = cell(one.text)
    if one.note:
        return f"{text} <sup>{one.note}</sup>"
    if one.tone == tables.FASTER:
        return f"**{text}**"
    return f"*{text}*" if one.tone == tables.FLOOR else text
