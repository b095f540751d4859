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

    from fastlstm.bench.floor.roofline import Roofline
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


# The figures of a table of scores: key, heading, how it is shown. The ratio is to the last value.
FIGURES = (
    ("rmse", "RMSE", "#.4g"),
    ("mae", "MAE", "#.4g"),
    ("smape", "sMAPE\n%", ".1f"),
    ("mase", "MASE", "#.3g"),
    ("scaled_mse", "scaled\nMSE", "#.3g"),
    ("accuracy", "accu-\nracy", ".4f"),
    ("ratio", "ratio", "#.3g"),
)
# Of values near 0 the accuracy has no bottom, and its digits no meaning.
LEAST_ACCURACY = -9.9
# A stream that is so much worse than fresh windows has left what the model was trained on.
COLLAPSED = 1.5
# Of a forecast of hundreds of steps so many are listed.
SHOWN_HORIZONS = 8


def scores(title: str, figures: Mapping[str, Any]) -> Group:
    """A model's errors as it was judged, beside its baselines, with what there is to say of them.

    One row for each way of running it and each baseline; below, the target columns and the errors
    by steps ahead where there are several.
    """
    ways = {way: figures[way] for way in ("streamed", "windowed") if way in figures}
    if len(ways) < 2:
        ways = {figures.get("protocol", "streamed"): figures}
    rows = {f"model, {way}": row for way, row in ways.items()}
    if "before" in figures:
        rows["untrained"] = figures["before"]
    rows |= figures.get("baselines", {})
    if "last value" not in rows:
        rows["last value"] = {key: figures[f"naive_{key}"] for key in ("rmse", "mae")}
    naive = figures["naive_rmse"]
    # A way's own figures lack the ratio.
    rated = {
        name: {**row, "ratio": row["rmse"] / naive if naive and row["rmse"] is not None else None}
        for name, row in rows.items()
    }
    unit = f" ({figures['unit']})" if figures.get("unit") else ""
    steps, ahead = f"{figures['steps']} forecasts", figures.get("ahead", 1)
    rolled = figures.get("backtest")
    if "by_horizon" in figures and rolled is None:
        ahead = figures["by_horizon"][-1]["ahead"]
    if ahead > 1:
        steps += f" of {ahead} steps"
    tables: list[Any] = [_figures(f"{title}: {figures['series']}, {steps}{unit}", "", rated)]
    if "columns" in figures:
        tables.append(_figures("By column", "column", figures["columns"]))
    if len(figures.get("by_horizon", ())) > 1:
        origins = f", each forecast fed back, {rolled['steps']} origins" if rolled else ""
        tables.append(_horizons(f"By steps ahead{origins}", figures["by_horizon"]))
    return Group(*tables, *(Text(note) for note in _notes(figures)))


def _figures(title: str, heading: str, rows: Mapping[str, Mapping[str, Any]]) -> Group:
    """One row for each forecaster; a figure that nobody has gets no column."""
    shown = [f for f in FIGURES if any(row.get(f[0]) is not None for row in rows.values())]
    table = _table([heading], [name for _, name, _ in shown])
    for name, row in rows.items():
        found = [_figure(row.get(key), form) for key, _, form in shown]
        for k, (key, *_) in enumerate(shown):
            value = row.get(key)
            if key == "accuracy" and value is not None and value < LEAST_ACCURACY:
                found[k] = f"< {LEAST_ACCURACY}"
        table.add_row(escape(name), *found)
    return _titled(title, table)


def _horizons(title: str, rows: list[dict[str, Any]]) -> Group:
    """Errors at some of the steps ahead, the first and the last among them."""
    count = min(SHOWN_HORIZONS, len(rows))
    picked = sorted({round(k * (len(rows) - 1) / max(1, count - 1)) for k in range(count)})
    table = _table((), ("steps\nahead", "RMSE", "MAE", "RMSE of\nlast value", "ratio"))
    for row in (rows[k] for k in picked):
        rmse, naive = row["rmse"], row["naive_rmse"]
        ratio = rmse / naive if naive and rmse is not None else None
        table.add_row(
            str(row["ahead"]),
            *(_figure(value, "#.4g") for value in (rmse, row["mae"], naive)),
            _figure(ratio, ".3f"),
        )
    return _titled(title, table)


def _notes(figures: Mapping[str, Any]) -> Iterable[str]:
    """What is to be said below the table."""
    streamed, windowed = (figures.get(way, {}).get("rmse") for way in ("streamed", "windowed"))
    if streamed and windowed and streamed > COLLAPSED * windowed:
        yield (
            f"Streamed, the RMSE is {streamed / windowed:.2f} times that of fresh windows: this "
            "model does not bear a stream longer than its windows. Before it follows a live "
            'series, train with windows.loss_at = "every", longer windows or windows.stateful.'
        )
    if "coverage" in figures:
        yield (
            f"Between the outermost quantiles lies {figures['coverage']:.1%} of the truth, "
            f"nominally {figures['coverage_nominal']:.1%}; pinball loss {figures['pinball']:#.4g}."
        )
    if figures.get("published"):
        metric = figures.get("metric", "")
        others = ", ".join(f"{name} {value:g}" for name, value in figures["published"].items())
        yield f"{metric} here: {_figure(figures.get(metric), '#.4g')}; published: {others}."
    if figures.get("selected_on") == "test":
        yield "The best epoch was chosen on the test part: these figures flatter the model."


def variants(figures: Mapping[str, Any]) -> Group:
    """One row for each variant of a recipe, beside the last value and what is published."""
    found = figures["variants"]
    rows = {
        name + (" (best)" if name == figures.get("best") else ""): row
        for name, row in found.items()
    }
    tables: list[Any] = [_figures(f"Variants of {figures['recipe']}", "variant", rows)]
    for name, row in found.items():
        tables += [Text(f"{name}: {note}") for note in _notes(row)]
    return Group(*tables)


def recipes(found: Mapping[str, str]) -> Group:
    """The ready recipes, and what each is for."""
    return pairs("Ready recipes", found)


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
