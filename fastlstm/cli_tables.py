"""The rich tables that the `fastlstm` command prints. They format figures and compute none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fastlstm.bench import Result, Row
    from fastlstm.bench.roofline import Roofline
    from fastlstm.model import Model
    from fastlstm.verify import Report

STYLES = {
    "ok": "green",
    "wrong": "bold red",
    "failed": "bold red",
    "missing": "yellow",
    "unsupported": "yellow",
}
# What a layer may have beside its weights and biases, as a reader calls it.
EXTRAS = {"weight_hr_l0": "projection", "peephole_l0": "peepholes"}

# So many columns of a Residual are listed; a long forecast has hundreds.
SHOWN_COLUMNS = 6


def _table(left: Iterable[str], right: Iterable[str], last: str = "") -> Table:
    """A table: words in the `left` columns, figures in the `right` ones, words in the `last`."""
    # Narrow, so that every figure is there on a terminal of 80 columns.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    if last:
        table.add_column(last)
    return table


def _titled(title: str, table: Table) -> Group:
    """A table under its title; rich's own titles are broken to the width of the table."""
    return Group(Text(title, style="bold"), table, Text())


def _figure(value: float | None, form: str = ".1e") -> str:
    return "-" if value is None or value != value else format(value, form)


def verdicts(report: Report) -> Group:
    """One row for each road of a verify report, and below the table what there is to say of one."""
    figures = ("steps", "max abs\nerror", "rel.\nL2", "bound", "state\nerror")
    table = _table(["road"], figures, "verdict")
    for row in report.rows:
        table.add_row(
            escape(row.road),
            str(row.steps or "-"),
            _figure(row.max_abs_error),
            _figure(row.relative_l2),
            _figure(row.bound),
            _figure(row.state_error),
            f"[{STYLES.get(row.verdict, '')}]{row.verdict}[/]",
        )
    notes = [Text(f"{row.road}: {row.note}") for row in report.rows if row.note]
    return Group(_titled("Every road against the float64 reference", table), *notes)


def scores(title: str, figures: Mapping[str, Any]) -> Group:
    """Our errors beside the naive ones, one row for each target column and one for all."""
    unit = f" ({figures['unit']})" if figures.get("unit") else ""
    table = _table(["error"], ["model", "last value", "ratio"])
    for name, row in (("", figures), *figures.get("columns", {}).items()):
        of = f" of {name}" if name else ""
        for label, key in (("RMSE", "rmse"), ("MAE", "mae")):
            ours, naive = row[key], row[f"naive_{key}"]
            ratio = ours / naive if naive else None
            table.add_row(
                escape(label + of), f"{ours:#.4g}", f"{naive:#.4g}", _figure(ratio, ".3f")
            )
    return _titled(f"{title}: {figures['series']}, {figures['steps']} steps{unit}", table)


def timings(result: Result) -> list[Group]:
    """One table for each model and way of calling it; what was not timed comes last, with why."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(result.rows, key=lambda row: row.median_ns is None):
        groups.setdefault((row.model, row.mode), []).append(row)
    tables = []
    for (model, mode), rows in groups.items():
        table = _table(["contender"], ["median", "p99", "times\nours", "error"], "note")
        for row in rows:
            table.add_row(
                escape(row.contender),
                _figure(row.median_ns, ",.0f"),
                _figure(row.p99_ns, ",.0f"),
                _figure(row.ratio, ",.1f"),
                _figure(row.error),
                escape(row.note),
            )
        tables.append(_titled(f"{model}, {mode}: nanoseconds a time step", table))
    return tables


def roofline(result: Roofline) -> Group:
    """One row for each size: a step, the weights that it reads, and only loading them."""
    figures = ("H", "step\nns", "weights\nbytes", "load\nns", "step /\nload")
    table = _table((), figures, "loaded by")
    for row in result.rows:
        table.add_row(
            str(row.hidden),
            _figure(row.step_ns, ",.1f"),
            f"{row.weights_bytes:,}",
            _figure(row.load_ns, ",.1f"),
            _figure(row.ratio, ".2f"),
            row.way,
        )
    title = f"{result.cell}, one input: a step in the compiled loop, and only loading its weights"
    return _titled(title, table)


def layers(model: Model) -> Group:
    """One row for each layer of a model."""
    table = _table(["layer", "kind"], ["inputs", "outputs", "parameters"], "states and settings")
    for position, layer in enumerate(model.layers):
        states = [f"{s.name} ({s.size})" for s in model.states if s.layer == position]
        extras = [word for name, word in EXTRAS.items() if name in layer.arrays]
        # A Difference's only setting is its size, which stands beside it.
        options = {} if layer.kind == "Difference" else layer.options
        settings = [
            _columns(value) if name == "columns" else f"{name} {value}"
            for name, value in options.items()
        ]
        table.add_row(
            str(position),
            layer.kind,
            str(layer.input_size),
            str(layer.output_size),
            f"{sum(array.size for array in layer.arrays.values()):,}",
            ", ".join(states + extras + settings),
        )
    return _titled("Layers", table)


def _columns(columns: list[int]) -> str:
    """Which values a Residual adds, however many they are."""
    first, count = columns[0], len(columns)
    if len(set(columns)) == 1:
        return f"column {first}" + (f" for all {count}" if count > 1 else "")
    if columns == list(range(first, first + count)):
        return f"columns {first} to {columns[-1]}"
    shown = ", ".join(map(str, columns[:SHOWN_COLUMNS]))
    return f"columns {shown}" + (
        f" and {count - SHOWN_COLUMNS} more" if count > SHOWN_COLUMNS else ""
    )


def facts(path: Path, model: Model, size: str, digest: str) -> Group:
    """What else is known of a model file."""
    states = sum(state.size for state in model.states)
    found = {
        "file": f"{path} ({size})",
        "digest": digest,
        "inputs, outputs": f"{model.input_size}, {model.output_size}",
        "parameters": f"{model.num_parameters:,}",
        "state of one stream": (
            "none: a bidirectional layer needs the whole sequence"
            if model.bidirectional
            else f"{states} numbers, {4 * states:,} bytes as float32"
        ),
    }
    for name, value in model.metadata.items():
        found[f"metadata: {name}"] = value if isinstance(value, str) else json.dumps(value)
    return pairs("File", found)


def pairs(title: str, values: Mapping[str, str]) -> Group:
    """Names and their values."""
    table = _table(["name"], [], "value")
    table.show_header = False
    for name, value in values.items():
        table.add_row(escape(name), escape(value))
    return _titled(title, table)
