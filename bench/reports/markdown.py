"""A Document as a page of Markdown, and the Markdown that other pages of figures are made of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from . import facts, sentences, tables
from .selection import ladders_of, pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .document import Document, ModeInfo
    from .tables import Cell, Table

STRONG = (tables.FASTER, tables.LATE, tables.MOVED)


def report(document: Document) -> str:
    """The whole page: the machine, each mode with its tables, and how each contender was set up."""
    parts = [
        f"# fastlstm bench: {cell(document.preset)}",
        f"Written from a result of {code(document.command)}, begun {cell(document.started)}.",
        bullets([f"**Warning**: {cell(one)}" for one in document.noise.warnings]),
    ]
    if document.advice:
        parts.append("## Advice")
        parts += [
            f"**{cell(one.question)}** {cell(one.contender)}.\n\n{bullets(map(cell, one.reasons))}"
            for one in document.advice
        ]
    for mode in document.modes:
        parts += _mode(document, mode)
    if document.starts:
        parts.append("## From the start of a process")
        parts += [titled(table) for table in facts.starts(document)]
    if document.published:
        parts += ["## Published by others", titled(facts.published(document))]
    parts += ["## How it was measured", bullets(map(cell, sentences.method(document)))]
    for table in (
        facts.machine(document),
        facts.noise(document),
        facts.settings(document),
        facts.models(document),
        facts.contenders(document),
    ):
        parts.append(titled(table))
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _mode(document: Document, mode: ModeInfo) -> list[str]:
    """What the mode is, how it went, a table a model, and who was not timed."""
    parts = [f"## {cell(mode.name)}", f"{cell(mode.meaning)} Ratios are to {cell(mode.ours)}."]
    said = (
        sentences.standing(document, mode),
        sentences.losses(document, mode),
        sentences.draws(document, mode),
    )
    parts.append(bullets(cell(one) for one in said if one))
    for stem, models in ladders_of(document, mode).items():
        parts.append(titled(tables.matrix(document, stem, models, mode)))
    for model, its in pairs(document):
        if its == mode:
            parts.append(titled(tables.of_mode(document, model, mode), notes=False))
    refused = sentences.refusals(document, mode)
    if refused:
        parts += ["Not timed:", bullets(map(cell, refused))]
    return parts


def titled(written: Table, *, notes: bool = True) -> str:
    """A table under its title, its notes below."""
    lines = [[_cell(one, k == 0) for k, one in enumerate(row)] for row in written.rows]
    parts = [f"**{cell(written.title)}**", table(written.header, lines, sorted(written.words))]
    if notes and written.notes:
        parts.append(bullets(map(cell, written.notes)))
    return "\n\n".join(parts)


def _cell(one: Cell, first: bool) -> str:
    """A cell with its interval; our name and what beats us in bold, the floor in italics."""
    text = cell(one.text)
    if one.tone in STRONG or (first and one.tone == tables.OURS):
        text = f"**{text}**"
    elif one.tone == tables.FLOOR:
        text = f"*{text}*"
    if one.note:
        text += f" <sup>{one.note}</sup>"
    return f"{text} ({cell(one.detail)})" if one.detail else text


def code(text: str) -> str:
    """A command as Markdown keeps it, on one line."""
    plain = " ".join(text.split())
    # As many backticks around it as are nowhere in it.
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    return f"{fence} {plain} {fence}" if "`" in plain else f"`{plain}`"


def bullets(lines: Any) -> str:
    """A list; the lines are Markdown already."""
    return "\n".join(f"- {line}" for line in lines)


def require(document: Mapping[str, Any], schema: str, command: str) -> None:
    """Raise ValueError, which names the `command` that writes one, unless it is of that schema."""
    if document.get("schema") != schema:
        raise ValueError(
            f"expected a result of schema {schema}, found {document.get('schema')!r}: "
            f"write one with `{command}`"
        )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int]) -> str:
    """Rows of cells as Markdown; columns in `words` are aligned left, the others right."""
    marks = [":--" if k in words else "--:" for k in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, marks, *rows))


def machine_line(document: Mapping[str, Any]) -> str:
    """What a document of plain data was measured on, in one line: its machine and its rounds."""
    machine = document["machine"]
    load = machine.get("load_average")
    cores, width, threads = (machine.get(key) for key in ("cores", "vector_width", "threads"))
    facts_of = [
        machine.get("processor"),
        f"{cores} cores" if cores else None,
        None if load is None else f"load {load:.2f} at the start",
        f"governor {machine['governor']}" if machine.get("governor") else None,
        f"vectors of {width}" if width else None,
        f"{threads} thread" + "s" * (threads != 1) if threads else None,
        machine.get("system"),
        f"Python {machine['python']}" if machine.get("python") else None,
        *(f"{name} {v}" for name, v in (machine.get("versions") or {}).items() if v),
        f"{document['rounds']} interleaved rounds",
    ]
    return "Measured on: " + ", ".join(cell(fact) for fact in facts_of if fact) + "."


def cell(text: Any) -> str:
    """Words that Markdown keeps as they are, on one line."""
    plain = " ".join(str(text).split())
    for mark in ("\\", "|", "*", "_", "`", "<", "&", "[", "]"):
        plain = plain.replace(mark, f"\\{mark}")
    return plain
