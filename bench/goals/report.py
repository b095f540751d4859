"""The measured goals as Markdown: every value, its goal, and whether it is met.

It formats figures and computes none beside counting what is met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..reports.markdown import cell, machine_line, require, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA = "fastlstm-limits-1"
ANSWERS = {True: "met", False: "**not met**", None: ""}


def markdown(document: Mapping[str, Any]) -> str:
    """A whole file for a document as goals.measure_goals makes it.

    Raises ValueError for a document of another schema.
    """
    require(document, SCHEMA, "python -m fastlstm.bench.goals --json")
    parts = document["parts"]
    lines = [
        "# The goals of speed, and what was measured",
        "Written by `make limits`; a goal is the greatest value that meets it. "
        + machine_line(document),
        "**A quick run: its figures mean nothing.**" if document["settings"]["quick"] else "",
        table(
            ("", "part", "met", "of", "seconds"),
            [
                (
                    str(part["number"]),
                    cell(part["title"]),
                    str(_count(part, True)),
                    str(_count(part, True) + _count(part, False)),
                    f"{part['seconds']:.0f}",
                )
                for part in parts
            ],
            words=(1,),
        ),
    ]
    for part in parts:
        lines += [
            f"## {part['number']}. {cell(part['title'])}",
            f"Measured: {part['measured_as']}.",
        ]
        if part["failure"]:
            lines.append(f"**Failed**: {cell(part['failure'])}")
        if part["rows"]:
            lines += [_rows(part["rows"]), _below(part["rows"])]
    return "\n\n".join(line for line in lines if line) + "\n"


def _count(part: Mapping[str, Any], met: bool) -> int:
    return sum(row["met"] is met for row in part["rows"])


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    aims = any(row["goal"] is not None for row in rows)
    header = ("", *columns, "measured", *(("goal", "") if aims else ()))
    lines = []
    for row in rows:
        figures = [_figure(row["figures"].get(name)) for name in columns]
        last = (_goal(row["goal"]), ANSWERS[row["met"]]) if aims else ()
        lines.append((cell(row["what"]), *figures, _measured(row["measured"]), *last))
    return table(header, lines, words=(0,))


def _below(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which goals are missed, by name, and what there is to say of a row."""
    missed = [
        f"{cell(row['what'])} ({_measured(row['measured'])}, goal {_goal(row['goal'])})"
        for row in rows
        if row["met"] is False
    ]
    notes = [f"{cell(row['what'])}: {cell(row['note'])}." for row in rows if row["note"]]
    return " ".join([*([f"Not met: {'; '.join(missed)}."] if missed else []), *notes])


def _measured(value: float | None) -> str:
    # Three places, so that one just above its goal does not look like it.
    return "-" if value is None else f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"


def _goal(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _figure(value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return cell(value)
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
