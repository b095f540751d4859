"""A bench result as a Markdown section, losses included, and the command that puts it in place.

`python -m fastlstm.bench.report RESULT.json README.md` replaces what is between the two markers. It
formats figures and computes none, so that the README says what was measured.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import SCHEMA
from .contenders import OURS, SEQUENCE, STEP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
TITLES = {
    STEP: "One call a time step, the state carried",
    SEQUENCE: "One call for {steps:,} time steps",
}
HEADER = ("model", "contender", "median ns", "p99 ns", "times ours", "greatest error")


def markdown(document: Mapping[str, Any]) -> str:
    """The section for a result as Result.to_dict() gives it: the machine, then a table a mode.

    Raises ValueError for a document of another schema.
    """
    require(document, SCHEMA, "fastlstm bench --json")
    rows = document["rows"]
    parts = [machine_line(document)]
    for mode in dict.fromkeys(row["mode"] for row in rows):
        title = TITLES.get(mode, mode).format(steps=document["steps"])
        timed = [row for row in rows if row["mode"] == mode and row["median_ns"] is not None]
        parts += [f"**{title}.** Nanoseconds a time step.", _table(timed), _below(mode, timed)]
    parts.append(_not_timed(rows))
    return "\n\n".join(part for part in parts if part) + "\n"


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


def replace(text: str, section: str) -> str:
    """`text` with `section` between its two markers; raises ValueError unless each is there once.

    The section is taken as it is: its own lines are never read as markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected one line {BEGIN} and after it one line {END}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{section.strip()}\n{END}{rest.split(END)[1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Put a result into a file between its markers; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 2:
        print("usage: python -m fastlstm.bench.report RESULT.json README.md", file=sys.stderr)
        return 2
    result, readme = map(Path, arguments)
    file = result
    try:
        section = markdown(json.loads(result.read_text("utf-8")))
        file = readme
        readme.write_text(replace(readme.read_text("utf-8"), section), "utf-8")
    except OSError as error:
        print(f"error: {file}: {error.strerror}", file=sys.stderr)
        return 1
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"no {error} in the result" if isinstance(error, KeyError) else error
        print(f"error: {file}: {problem}", file=sys.stderr)
        return 1
    print(f"wrote {readme}")
    return 0


def machine_line(document: Mapping[str, Any]) -> str:
    """What a document was measured on, in one line."""
    machine = document["machine"]
    load = machine["load_average"]
    facts = [
        machine["processor"],
        f"{machine['cores']} cores",
        None if load is None else f"load {load:.2f} at the start",
        f"governor {machine['governor']}" if machine["governor"] else None,
        f"vectors of {machine['vector_width']}",
        f"{machine['threads']} thread" + "s" * (machine["threads"] != 1),
        machine["system"],
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in machine["versions"].items() if version),
        f"{document['rounds']} interleaved rounds",
    ]
    return "Measured on: " + ", ".join(cell(fact) for fact in facts if fact) + "."


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    last = None
    for row in rows:
        # A model's name stands on its first row only.
        model = "" if row["model"] == last else row["model"]
        last = row["model"]
        ours = row["contender"] == OURS.get(row["mode"])
        name = cell(row["contender"])
        lines.append(
            (
                cell(model),
                f"**{name}**" if ours else name,
                f"{row['median_ns']:,.0f}",
                f"{row['p99_ns']:,.0f}",
                # Two digits near 1, where one would call a loss a draw.
                f"{row['ratio']:,.2f}" if row["ratio"] < 2 else f"{row['ratio']:,.1f}",
                f"{row['error']:.1e}",
            )
        )
    return table(HEADER, lines, words=(0, 1))


def _below(mode: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the figures are, and which of them beat ours."""
    samples = sorted({row["samples"] for row in rows})
    if not samples:
        return "None was timed."
    what = "single calls" if mode == STEP else "whole calls, each divided by its steps"
    counts = " to ".join(f"{count:,}" for count in dict.fromkeys((samples[0], samples[-1])))
    faster = [f"{row['contender']} on {row['model']}" for row in rows if row["ratio"] < 1]
    found = f"Faster than ours: {', '.join(map(cell, faster))}." if faster else "None is faster."
    return f"p99 is over {counts} {what}. {found}"


def _not_timed(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"- {cell(row['contender'])} on {cell(row['model'])}: {cell(row['note'])}"
        for row in rows
        if row["median_ns"] is None
    ]
    return "\n".join(["Not timed:", "", *lines]) if lines else ""


def cell(text: Any) -> str:
    """Words that Markdown keeps as they are, on one line."""
    plain = " ".join(str(text).split())
    for mark in ("\\", "|", "*", "_", "`", "<", "[", "]"):
        plain = plain.replace(mark, f"\\{mark}")
    return plain


if __name__ == "__main__":
    sys.exit(main())
