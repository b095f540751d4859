"""The main job on a real series: train, save, verify, export, stream, forecast and bench.

`make demo` runs it. `python examples/demo.py sunspots` takes another ready recipe. Everything
lands in demo-run/; the exit code is 1 if the model is no better than the last value, or if any
road leaves its bound.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

import fastlstm
from fastlstm import cli_tables, export, train
from fastlstm.bench import presets
from fastlstm.bench.benchmark import benchmark
from fastlstm.bench.contenders.contender_list import CONTENDERS
from fastlstm.bench.reports import document, selection, terminal
from fastlstm.bench.reports.page import page
from fastlstm.bench.reports.wording import duration, times
from fastlstm.cli_output import telling
from fastlstm.cli_series import carry_on, clock_text
from fastlstm.train.series import load_series
from fastlstm.train.split import split

OUT = Path("demo-run")
AHEAD = 104  # steps of the forecast beyond the end: two years of weeks
# Beside the run folder's own files.
WRITTEN = [
    "verify.json",
    "model.onnx",
    "streamed.csv",
    "ahead.csv",
    "ahead.png",
    "bench.json",
    "bench.html",
]
console = Console()
if not console.is_terminal:
    console = Console(width=160)


def main(recipe_name: str = "co2") -> int:
    """Do the whole job; return the exit code."""
    started = time.perf_counter()

    chapter("1. Train", f"the recipe {recipe_name!r}, to the held-out last part")
    recipe = train.load_recipe(recipe_name)
    done = train.fit(recipe, OUT)
    metrics = done.metrics
    console.print(cli_tables.scores("Held out", metrics))

    chapter(
        "2. One file", "weights, architecture, scaling, digest and a check vector that load replays"
    )
    path = OUT / "model.safetensors"
    model = fastlstm.load(path)
    console.print(cli_tables.layers(model))

    chapter("3. Verify", "every road of this machine against the float64 reference")
    with telling("Verifying") as tell:
        report = fastlstm.verify(model, progress=tell)
    console.print(cli_tables.verdicts(report))
    write_json("verify.json", report.to_dict())

    chapter("4. Export", "to ONNX, replayed through ONNX Runtime before it is written")
    onnx = export.onnx(model, OUT / "model.onnx")
    print(
        f"greatest error {onnx.max_abs_error:.2e} over {onnx.steps} steps, bound {onnx.bound:.2e}"
    )

    chapter("5. Stream", "the held-out part, one sample at a time, as it would come in")
    series = load_series(recipe.series)
    horizon = recipe.windows.horizon
    first = split(series, recipe).test[0].first
    stream = model.stream()
    stream.run(series.inputs[: first - horizon])  # all that came before
    live = series.inputs[first - horizon : len(series) - horizon]
    streamed = np.array([stream.step(sample) for sample in live.astype(np.float32)])
    rmse = float(np.sqrt(np.mean((streamed - series.targets[first:]) ** 2)))
    truth = fastlstm.reference.run(model, series.inputs.astype(np.float32))
    distance = float(np.abs(streamed - truth[first - horizon : len(series) - horizon]).max())
    write_csv("streamed.csv", series, first, streamed)
    print(f"{len(streamed)} samples, RMSE {rmse:.4g}; at most {distance:.2e} from the reference")

    # Beyond the end: each prediction is the next input.
    ahead = carry_on(model, series, AHEAD)
    (OUT / "ahead.csv").write_text(ahead.csv())
    ahead.plot(OUT / "ahead.png")

    chapter("6. Bench", "every road that computes the same, timed side by side on one thread")
    plan = presets.without_starts(presets.own_model(CONTENDERS, recipe_name, model, streams=()))
    with telling("Timing") as tell:
        timings = benchmark(replace(plan, rounds=9), command="make demo", progress=tell)
    console.print(terminal.report(timings))
    document.write(timings, OUT / "bench.json")
    (OUT / "bench.html").write_text(page(timings, "bench.json"), "utf-8")

    verdicts = [row.verdict for row in report.rows]
    ran = [row for row in report.rows if row.verdict == "ok"]
    worst = max((row.max_abs_error / row.bound for row in ran), default=float("nan"))
    checks = {
        "better than the last value": metrics["rmse"] < metrics["naive_rmse"],
        "every road within its bound": report.ok,
        "the stream gives the figures of training": abs(rmse / metrics["rmse"] - 1) < 1e-3,
    }
    chapter("Summary", "")
    pairs = {
        "series": f"{series.name}, {len(series)} steps, the last {len(streamed)} held out",
        "trained": f"{metrics['epochs']} epochs in {metrics['seconds']:.0f} s, "
        f"{model.num_parameters:,} parameters, {path.stat().st_size:,} bytes",
        "RMSE held out": f"{metrics['rmse']:.4g} {series.unit}, last value "
        f"{metrics['naive_rmse']:.4g}, ratio {metrics['ratio']:.3f}",
        "RMSE streamed": f"{rmse:.4g} {series.unit}, one sample at a time",
        "roads": f"{len(ran)} within bounds, {verdicts.count('missing')} not installed, "
        f"{len(verdicts) - len(ran) - verdicts.count('missing')} wrong; "
        f"the nearest to its bound at {worst:.0%} of it",
        **{f"fastest, {mode}": text for mode, text in fastest(timings).items()},
        "whole demo": f"{time.perf_counter() - started:.0f} s",
        **{name: "yes" if good else "NO" for name, good in checks.items()},
    }
    console.print(cli_tables.pairs("Result", pairs))
    print("Files to look at:")
    for name in (*(file.name for file in done.files), *WRITTEN):
        print(f"  {OUT / name}")
    return 0 if all(checks.values()) else 1


def chapter(title: str, subtitle: str) -> None:
    """A heading."""
    print()
    console.rule(f"[bold]{title}[/] {subtitle}".rstrip(), align="left")


def fastest(timings: document.Document) -> dict[str, str]:
    """For each way of calling: our time, and the fastest of the other runtimes."""
    found = {}
    for mode in timings.modes:
        rows = [row for row in timings.rows if row.mode == mode.name and row.ns]
        ours = next((row for row in rows if row.contender == mode.ours), None)
        others = selection.rivals(timings, rows)
        if ours and others:
            other = min(others, key=lambda row: row.ns.value)
            found[mode.name] = (
                f"{ours.contender} {duration(ours.ns.value)}; {other.contender} "
                f"{duration(other.ns.value)}, {times(other.ratio.value)} times ours"
            )
    return found


def write_json(name: str, figures: dict) -> None:
    """One result, for a program to read."""
    (OUT / name).write_text(json.dumps(figures, indent=2) + "\n")


def write_csv(name: str, series, first: int, streamed) -> None:
    """Time, truth and prediction of every streamed step."""
    columns = series.target_columns
    header = [series.time_name, *columns, *(f"{column} predicted" for column in columns)]
    rows = zip(clock_text(series.time[first:]), series.targets[first:], streamed, strict=True)
    lines = [",".join(map(str, (when, *truth, *guess))) for when, truth, guess in rows]
    (OUT / name).write_text("\n".join([",".join(header), *lines]) + "\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
