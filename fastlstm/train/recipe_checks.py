"""What tables of a recipe forbid one another: each check names both keys and the way out.

Each table checks itself in recipe_tables.py; what hangs on the series itself is checked by fit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlstm.train.recipe_tables import Recipe, SeriesTable

# What a variant may be called: the name of a folder on any system, beside a run's own files.
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*")
_TAKEN = ("checkpoints", "unfinished")


def contradictions(recipe: Recipe) -> list[str]:
    """Every contradiction between tables, as a sentence for a person."""
    checks = (
        _training,
        _least_squares,
        _free_run,
        _lbfgs,
        _closed_loop,
        _windows,
        _level_shift,
        _variants,
    )
    return [fault for check in checks for fault in check(recipe)]


def series_faults(table: SeriesTable) -> Iterator[str]:
    """What the keys of [series] forbid one another."""
    if table.divisor != 1 and table.scaling != "divide":
        yield (
            f'divisor belongs to scaling = "divide", found {table.divisor:g} with '
            f'"{table.scaling}": leave it out, or set scaling'
        )
    if both := [name for name in table.known_ahead if name in (table.target or ())]:
        yield (
            f"known_ahead: {', '.join(both)} is also in target, so it would be shown what it has "
            "to predict: name it in one of the two"
        )
    only_files = {"format": table.format, "sequence": table.sequence, "time": table.time}
    given = [key for key, value in only_files.items() if value is not None]
    # A layout may stand beside a generator: it says how a file given in its place is read.
    if table.generator is not None and given:
        yield f"{given[0]} belongs to a file, found with a generator: leave it out"
    elif table.layout == "lines":
        beside = {k: v for k, v in only_files.items() if v and k != "format"}
        if table.known_ahead:
            beside["known_ahead"] = ", ".join(table.known_ahead)
        for key, value in beside.items():
            yield (
                f'{key} names a column, found {value} with layout = "lines", where a line holds '
                "one sequence and nothing else: leave it out, or write the file with one step a row"
            )
        columns = {*(table.input or ()), *(table.target or ())}
        if len(columns) > 1:
            yield (
                'layout = "lines" has one column, which is both input and target, found '
                f"{', '.join(sorted(columns))}: name one, or none"
            )


def _least_squares(recipe: Recipe) -> Iterator[str]:
    if recipe.optimiser.name != "least_squares":
        return
    training, windows = recipe.training, recipe.windows
    wrong = {
        'training.loss "mse"': training.loss != "mse",
        "no network.quantiles": bool(recipe.network.quantiles),
        "one device": training.devices * training.nodes > 1,
        "training.average_weights 0": training.average_weights > 0,
        "windows.length above 0": not windows.length,
        "neither windows.stateful nor windows.free_run": windows.stateful or windows.free_run > 0,
        "training.max_epochs of at most one for each of optimiser.penalties": (
            training.max_epochs > len(recipe.optimiser.penalties)
        ),
    }
    if missing := [what for what, is_wrong in wrong.items() if is_wrong]:
        yield f"optimiser.name least_squares solves one linear problem: it needs {missing[0]}"


def _free_run(recipe: Recipe) -> Iterator[str]:
    windows = recipe.windows
    if not windows.free_run:
        return
    if windows.horizon != 1 or recipe.network.quantiles or recipe.series.known_ahead:
        yield (
            "windows.free_run feeds each forecast back as the next input, so it needs windows."
            "horizon 1 and neither network.quantiles nor series.known_ahead: set it to 0, or "
            "leave these out"
        )
    if recipe.training.devices * recipe.training.nodes > 1:
        yield "windows.free_run trains in one process: set training.devices and nodes to 1"


def _training(recipe: Recipe) -> Iterator[str]:
    training, quantiles = recipe.training, recipe.network.quantiles
    if quantiles and training.loss != "mse":
        yield (
            f"training.loss: with network.quantiles the loss is theirs (pinball), found "
            f'"{training.loss}": leave it out, or leave out the quantiles'
        )
    if training.monitor == "closed_loop" and not recipe.closed_loop.steps:
        yield (
            'training.monitor is "closed_loop", but closed_loop.steps is 0, so there is no such '
            'forecast: set closed_loop.steps, or monitor "loss"'
        )


def _lbfgs(recipe: Recipe) -> Iterator[str]:
    if recipe.optimiser.name != "lbfgs":
        return
    training = recipe.training
    if training.devices * training.nodes > 1:
        yield (
            "optimiser.name lbfgs decides its next move by the loss, which each device sees of its "
            f"own windows only, found training.devices {training.devices} on training.nodes "
            f"{training.nodes}: set both to 1 or choose another optimiser"
        )
    if training.gradient_clip:
        yield (
            "optimiser.name lbfgs learns the curvature from its gradients, which clipping bends, "
            f"found training.gradient_clip {training.gradient_clip:g}: set it to 0"
        )
    if training.precision in ("bf16-mixed", "16-mixed"):
        yield (
            "optimiser.name lbfgs compares losses closer than 16 bits tell apart, found "
            f'training.precision "{training.precision}": set "32" or "64"'
        )


def _closed_loop(recipe: Recipe) -> Iterator[str]:
    steps = recipe.closed_loop.steps
    if not steps:
        return
    windows, series = recipe.windows, recipe.series
    needs = "closed_loop.steps: a forecast that feeds on itself needs"
    if windows.direct:
        yield f"{needs} one step at a time: set windows.direct to false, or closed_loop.steps to 0"
    elif windows.horizon != 1:
        yield (
            f"{needs} windows.horizon 1, found {windows.horizon}: set it to 1, or "
            "closed_loop.steps to 0"
        )
    if series.input is not None and series.target not in (None, series.input):
        yield (
            f"{needs} series.target to be series.input, found {', '.join(series.target or ())} and "
            f"{', '.join(series.input)}: name the same columns, or set closed_loop.steps to 0"
        )
    if series.known_ahead:
        yield (
            f"{needs} nothing but its own values, found series.known_ahead "
            f"{', '.join(series.known_ahead)}: leave it out, or set closed_loop.steps to 0"
        )
    if series.generator is not None and 0 < series.generator.beyond < steps:
        yield (
            f"closed_loop.steps: found {steps}, of which series.generator.beyond makes only "
            f"{series.generator.beyond}: set it to {steps}, or to 0 to forecast the end of each "
            "sequence"
        )


def _windows(recipe: Recipe) -> Iterator[str]:
    windows, series = recipe.windows, recipe.series
    if windows.stateful and series.layout == "lines":
        yield (
            "windows.stateful carries the state along sequences of one length, found series.layout "
            '"lines": set it to false, and windows.length to 0 for whole sequences'
        )
    if windows.stateful and not recipe.training.batch_size:
        yield (
            "windows.stateful needs training.batch_size, the number of stretches side by side, "
            "found 0: set it to 1 or more"
        )
    training = recipe.training
    if windows.stateful and training.devices * training.nodes > 1:
        yield (
            "windows.stateful walks through the series on one device, found training.devices "
            f"{training.devices} on training.nodes {training.nodes}: set both to 1, or "
            "windows.stateful to false"
        )


def _level_shift(recipe: Recipe) -> Iterator[str]:
    series, shift = recipe.series, recipe.training.level_shift
    if shift and series.input is not None and series.target not in (None, series.input):
        yield (
            "training.level_shift moves inputs and targets alike, so it needs series.target to be "
            f"series.input, found {', '.join(series.target or ())} and {', '.join(series.input)}: "
            "set it to 0"
        )


def _variants(recipe: Recipe) -> Iterator[str]:
    for name, changes in recipe.variants.items():
        if not _FOLDER.fullmatch(name) or name in _TAKEN:
            yield (
                "variants: expected names that a folder may have (letters, digits, _ - + and . "
                f"between them, not {' or '.join(_TAKEN)}), found {name!r}: rename it"
            )
        for key in ("name", "variants"):
            if key in changes:
                yield (
                    f"variants.{name}: a variant is named by its key and has none of its own, "
                    f"found {key}: leave it out"
                )
    if recipe.evaluation.best_by and not recipe.variants:
        yield (
            f'evaluation.best_by is "{recipe.evaluation.best_by}", but there are no variants to '
            "choose among: leave it out"
        )
