"""A Document on the terminal: rich tables of at most 100 columns, the noise first, advice last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from . import facts, sentences, tables
from .selection import ladders_of, pairs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from .document import Document
    from .tables import Cell, Table

WIDTH = 100
STYLES = {
    tables.OURS: "bold",
    tables.FASTER: "bold magenta",
    tables.FLOOR: "dim",
    tables.UNTIMED: "yellow",
    tables.LATE: "bold red",
    tables.MOVED: "bold",
}
# Figures that only the longer reports have room for; of scheduled calls the median says what the
# 50th percentile says, and the missed ones need its place.
LEFT_OUT, LEFT_OUT_SCHEDULED = ("calls",), ("calls", "p50")
# Their intervals tell a draw from a loss; those of the others are in the longer reports.
WITH_INTERVAL = ("times ours", "A", "B")
# Of a ladder so many sizes fit beside each other.
SIZES_ACROSS = 8


def report(document: Document) -> Group:
    """Everything there is to see of a result."""
    parts: list[RenderableType] = [*_warnings(document)]
    parts += [draw(tables.of_mode(document, *pair)) for pair in pairs(document)]
    parts += [draw(table) for table in facts.starts(document)]
    for mode in document.modes:
        for stem, models in ladders_of(document, mode).items():
            table = tables.matrix(document, stem, models, mode)
            parts += map(draw, _in_parts(table, SIZES_ACROSS))
    if document.published:
        parts.append(draw(facts.published(document)))
    parts.append(draw(facts.contenders(document)))
    parts += [Text(line) for line in _words(document)]
    parts += _advice(document)
    return Group(*parts)


def draw(table: Table) -> Group:
    """One table under its title, its notes below."""
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0))
    left_out = LEFT_OUT_SCHEDULED if "missed" in table.header else LEFT_OUT
    kept = [k for k, name in enumerate(table.header) if name not in left_out]
    for k in kept:
        # Words may be folded; a figure that is cut is a wrong figure.
        left = k in table.words
        grid.add_column(
            table.header[k] if left else _narrow(table.header[k]),
            justify="left" if left else "right",
            no_wrap=not left,
            overflow="fold" if left else "ellipsis",
        )
    for row in table.rows:
        grid.add_row(*(_text(row[k], table.header[k]) for k in kept))
    notes = [
        Padding(Text(note, style="yellow"), (0, 0, 0, 2), expand=False) for note in table.notes
    ]
    body = [grid] if table.rows else []
    return Group(Text(table.title, style="bold"), *body, *notes, Text())


def _narrow(heading: str) -> str:
    """A heading of several words, one below the other."""
    return heading.replace(" ", "\n")


def _text(cell: Cell, column: str) -> Text:
    # The number of the note alone: eight sizes fit beside each other.
    text = Text(f"[{cell.note}]" if cell.note else cell.text, style=STYLES.get(cell.tone, ""))
    if cell.detail and column in WITH_INTERVAL:
        text.append(f" ({cell.detail.replace(' to ', '-')})", style="dim not bold")
    return text


def _in_parts(table: Table, across: int) -> Iterable[Table]:
    """A wide table as several, each with the first column and so many others."""
    for start in range(1, len(table.header), across):
        kept = [0, *range(start, min(start + across, len(table.header)))]
        last = kept[-1] == len(table.header) - 1
        yield tables.Table(
            table.title,
            tuple(table.header[k] for k in kept),
            tuple(tuple(row[k] for k in kept) for row in table.rows),
            table.words,
            table.notes if last else (),
        )


def _warnings(document: Document) -> Iterable[Text]:
    for warning in document.noise.warnings:
        yield Text(f"Warning: {warning}", style="yellow")
    if document.noise.warnings:
        yield Text()


def _words(document: Document) -> Iterable[str]:
    """Below all tables: how each mode went, then how it was measured."""
    for mode in document.modes:
        yield f"{mode.name}: {sentences.standing(document, mode)}"
        yield f"  {sentences.losses(document, mode)}"
        unsure = sentences.draws(document, mode)
        if unsure:
            yield f"  {unsure}"
    yield sentences.sampling(document)
    yield f"{sentences.machine(document)}. {sentences.quiet(document)}"


def _advice(document: Document) -> Iterable[RenderableType]:
    for one in document.advice:
        yield Text()
        yield Text.assemble((f"{one.question}: ", "bold"), (one.contender, "bold green"))
        for reason in one.reasons:
            yield Padding(Text(reason), (0, 0, 0, 2), expand=False)
