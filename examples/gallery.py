"""Train the ready recipes, prove each model on every road, and write docs/gallery.md with pictures.

`make gallery` runs it, an hour or two on two cores; `make gallery ONLY=sine,waves` trains some and
writes the page anew from what is in runs/gallery. `make gallery DATA=folder` also takes ball.csv
and ETTh1.csv, which fastlstm does not ship, from a folder. The exit code is 1 if a figure falls
short of its goal or a road leaves its bound.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

import fastlstm
from fastlstm import train
from fastlstm.bench.machine import describe
from fastlstm.cli_output import telling
from fastlstm.train.recipe import about

if TYPE_CHECKING:
    from fastlstm.train.recipe_tables import Recipe

RUNS, DOCS = Path("runs/gallery"), Path("docs")
PICTURES = DOCS / "gallery"
VERIFY_STEPS = 10_000
SEEDS = (0, 1, 2)
console = Console()


@dataclass(frozen=True)
class Goal:
    """What a figure of metrics.json must be below or, `above`, beyond; a dot enters a table."""

    figure: str
    bound: float | str  # a number, or another figure
    above: bool = False


@dataclass(frozen=True)
class Entry:
    """One recipe of the page."""

    recipe: str
    goals: tuple[Goal, ...] = ()
    pictures: tuple[str, ...] = ("forecast",)
    data: str = ""  # a file of the DATA folder
    needs_data: bool = False
    seeds: tuple[int, ...] = (0,)


BEATS_LAST = Goal("rmse", "baselines.last value.rmse")
BEATS_SEASONAL = Goal("rmse", "baselines.seasonal naive.rmse")
BEATS_LINEAR = Goal("scaled_mse", "baselines.linear map.scaled_mse")
ENTRIES = (
    Entry("sine", (Goal("rmse", 0.01),)),
    Entry("cosine", (Goal("rmse", 0.02),)),
    Entry("cosine-fine", (Goal("rmse", 0.005),)),
    Entry("waves", (Goal("least_validation_loss", 2e-4),), ("closed_loop", "loss")),
    Entry("waves-steady", (Goal("closed_loop.rmse", 0.1),), ("closed_loop", "loss")),
    Entry("waves-random", pictures=("closed_loop",)),
    Entry("waves-narrow", pictures=("closed_loop",)),
    Entry("waves-dropout", pictures=("closed_loop",)),
    Entry("waves-batchnorm", pictures=("closed_loop",)),
    Entry("minutes", pictures=("forecast", "loss")),
    Entry("last-step"),
    Entry("ball", (Goal("accuracy", 0.9275, above=True),), ("loss",), "ball.csv"),
    Entry("ball-residual", (Goal("accuracy", 0.99, above=True),), ("loss",), "ball.csv"),
    Entry("etth1", (BEATS_LINEAR, BEATS_LAST), ("fan", "horizon"), "ETTh1.csv", True, seeds=SEEDS),
    Entry("co2", (BEATS_LAST, BEATS_SEASONAL)),
    Entry("sunspots", (BEATS_LAST, BEATS_SEASONAL)),
)


def main() -> int:
    """Train, verify, write the page; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="recipes to train, separated by commas")
    parser.add_argument("--data", type=Path, help="a folder with ball.csv and ETTh1.csv")
    options = parser.parse_args()
    chosen = set(filter(None, options.only.split(",")))
    if unknown := chosen - {entry.recipe for entry in ENTRIES} - {"none"}:
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}")
    for entry in ENTRIES:
        if chosen and entry.recipe not in chosen:
            continue
        if entry.needs_data and not options.data:
            console.print(f"{entry.recipe}: left out: it needs {entry.data}; give its folder")
            continue
        for seed in entry.seeds:
            run(entry, seed, options.data)
    return write_page()


def run(entry: Entry, seed: int, data: Path | None) -> None:
    """Train one recipe with one seed, and verify every model that comes of it."""
    console.rule(f"{entry.recipe}, seed {seed}")
    source = data / entry.data if data is not None and entry.data else None
    overrides = {"training.seed": seed} if seed else {}
    recipe = train.load_recipe(entry.recipe, data=source, overrides=overrides)
    folder = RUNS / f"{entry.recipe}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    if recipe.variants:
        results = train.fit_variants(recipe, folder).results.values()
    else:
        results = [train.fit(recipe, folder)]
    console.print(f"trained in {time.perf_counter() - started:.0f} s")
    for done in results:
        name = str(done.metrics["recipe"])
        with telling(f"Verifying {name}") as tell:
            report = fastlstm.verify(done.model, steps=VERIFY_STEPS, progress=tell)
        (done.folder / "verify.json").write_text(json.dumps(report.to_dict(), indent=2) + "\n")
        roads = [row for row in report.rows if row.verdict == "ok"]
        console.print(f"{name}: {len(roads)} roads within bounds, {done.metrics['seconds']:.0f} s")


def places(recipe: Recipe, folder: Path) -> list[tuple[str, Path]]:
    """A recipe, or each of its variants, and where it goes."""
    if not recipe.variants:
        return [(recipe.name, folder)]
    return [(f"{recipe.name} {variant}", folder / variant) for variant in recipe.variants]


@dataclass(frozen=True)
class Run:
    """What one run left."""

    name: str
    seed: int
    folder: Path
    metrics: dict[str, Any]
    verify: dict[str, Any]

    def figure(self, path: str) -> float:
        """A figure of metrics.json by its path."""
        found: Any = self.metrics
        for part in path.split("."):
            found = found[part]
        return float(found)


def runs_of(entry: Entry) -> list[Run]:
    """The finished runs of a recipe, in the order of its variants, then of the seeds."""
    recipe = train.load_recipe(entry.recipe)
    found = []
    for seed in entry.seeds:
        for name, folder in places(recipe, RUNS / f"{entry.recipe}-{seed}"):
            if (folder / "verify.json").is_file():
                read = [
                    json.loads((folder / f).read_text()) for f in ("metrics.json", "verify.json")
                ]
                found.append(Run(name, seed, folder, *read))
    order = [name for name, _ in places(recipe, RUNS)]
    return sorted(found, key=lambda r: (order.index(r.name), r.seed))


def write_page() -> int:
    """docs/gallery.md and its pictures, from all runs there are."""
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)
    machine = describe()
    sections, rows, short = [], [], []
    for entry in ENTRIES:
        runs = runs_of(entry)
        if not runs:
            continue
        for one in runs:
            row, met = table_row(entry, one)
            rows.append(row)
            if not met:
                short.append(f"{one.name}, seed {one.seed}")
        sections.append(section(entry, runs))
    lines = [
        "# Gallery of the ready recipes",
        "",
        "Written by `make gallery`, which trains each recipe, verifies its model on every road and "
        "draws the pictures.",
        f"Machine: {machine['processor']}, {machine['cores']} cores, "
        f"torch {machine['versions']['torch']}. "
        f"Roads: every one of `fastlstm verify` over {VERIFY_STEPS:,} steps against the float64 "
        "reference.",
        "",
        "| recipe | seed | figure | goal | met | epochs | seconds | roads |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        *sections,
    ]
    (DOCS / "gallery.md").write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    summary = Table("falls short", box=None)
    for name in short or ["nothing"]:
        summary.add_row(name)
    console.print(summary)
    print(f"wrote {DOCS / 'gallery.md'}")
    return 1 if short else 0


def table_row(entry: Entry, one: Run) -> tuple[str, bool]:
    """A line of the table, and whether all is as it should be."""
    figures, goals, good = [], [], True
    for goal in entry.goals or (Goal("rmse", float("inf")),):
        value = one.figure(goal.figure)
        bound = one.figure(goal.bound) if isinstance(goal.bound, str) else goal.bound
        good &= value > bound if goal.above else value <= bound
        figures.append(f"{goal.figure} {value:.4g}")
        if bound != float("inf"):
            source = f" ({goal.bound.split('.')[1]})" if isinstance(goal.bound, str) else ""
            goals.append(f"{'>' if goal.above else '<='} {bound:.4g}{source}")
    verdicts = [row["verdict"] for row in one.verify["rows"]]
    roads = f"{verdicts.count('ok')} of {len(verdicts) - verdicts.count('unsupported')}"
    met = "-" if not goals else "yes" if good else "no"
    cells = (
        one.name,
        str(one.seed),
        "; ".join(dict.fromkeys(figures)),
        "; ".join(goals) or "-",
        met,
        str(one.metrics["epochs"]),
        f"{one.metrics['seconds']:.0f}",
        roads,
    )
    return f"| {' | '.join(cells)} |", good and bool(one.verify["ok"])


def section(entry: Entry, runs: list[Run]) -> str:
    """A recipe's part of the page: what it is, what it reached, its pictures."""
    lines = [f"## {entry.recipe}", "", about(entry.recipe), ""]
    published = [one for one in runs if one.metrics.get("published")]
    if published:
        metric = published[0].metrics["metric"]
        lines += [f"Published {metric}, for comparison:", ""]
        for name in dict.fromkeys(one.name for one in published):
            figures = next(r.metrics["published"] for r in published if r.name == name)
            ours = ", ".join(f"{r.figure(metric):.4g}" for r in runs if r.name == name)
            others = ", ".join(f"{who} {value:g}" for who, value in figures.items())
            lines.append(f"- {name}: ours {ours}; {others}")
        lines.append("")
    lines += [facts(one) for one in runs if one.seed == runs[0].seed]
    lines.append("")
    shown = [one for one in runs if one.seed == runs[0].seed]
    found = [
        (one.name, one.folder, name, picture_of(one, name))
        for one in shown
        for name in entry.pictures
    ]
    if shown[0].folder.parent != RUNS:
        above = shown[0].folder.parent
        found.insert(0, (entry.recipe, above, "variants", above / "variants.png"))
    for title, folder, name, picture in found:
        if picture is None or not picture.is_file():
            continue
        parts = folder.relative_to(RUNS).parts
        copy = PICTURES / f"{'-'.join(parts)}-{name}.png"
        shutil.copyfile(picture, copy)
        lines += [f"![{title}: {name}](gallery/{copy.name})", ""]
    return "\n".join(lines)


def facts(one: Run) -> str:
    """The figures of one run as an entry of a list."""
    m = one.metrics
    parts = [f"RMSE {m['rmse']:.4g}", f"last value {m['naive_rmse']:.4g}"]
    if m.get("before"):
        parts.append(f"before training {m['before']['rmse']:.4g}")
    for protocol in ("streamed", "windowed"):
        if m.get(protocol):
            parts.append(f"{protocol} {m[protocol]['rmse']:.4g}")
    if m.get("published") and m["metric"] == "scaled_mse":
        parts += [
            f"{protocol}, scaled: MSE {m[protocol]['scaled_mse']:.4f}, "
            f"MAE {m[protocol]['scaled_mae']:.4f}"
            for protocol in ("streamed", "windowed")
        ]
        linear = m["baselines"]["linear map"]
        parts.append(f"linear map: {linear['scaled_mse']:.4f}, {linear['scaled_mae']:.4f}")
    if m.get("closed_loop"):
        loop = m["closed_loop"]
        parts.append(
            f"closed loop over {loop['near_steps']} steps {loop['near_rmse']:.4g}, over "
            f"{loop['steps']:,} {loop['rmse']:.4g} (by epoch {closed_loops(one)})"
        )
    parts.append(f"training loss {m['train_loss']:.3g}, held-out {m['validation_loss']:.3g}")
    if m["selected_on"] == "test":
        parts.append("the epoch was chosen on the test part")
    return f"- {one.name}: {'; '.join(parts)}"


def closed_loops(one: Run) -> str:
    """The closed loop's error after every epoch, over the first steps and over all."""
    with (one.folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    pairs = [(float(row["closed_loop_near"]), float(row["closed_loop_all"])) for row in rows]
    return ", ".join(f"{near:.2g}/{whole:.2g}" for near, whole in pairs)


def picture_of(one: Run, name: str) -> Path | None:
    """The picture of that name; of closed loops the best epoch's."""
    if name == "closed_loop":
        path = one.folder / "closed_loop" / f"epoch-{one.metrics['best_epoch']:04}.png"
    else:
        path = one.folder / f"{name}.png"
    return path if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
