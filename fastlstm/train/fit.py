"""A recipe in, a run folder out: Lightning does the loop."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastlstm.errors import RecipeError
from fastlstm.train import run_folder
from fastlstm.train.backtest import obstacle
from fastlstm.train.closed_loop import ClosedLoop
from fastlstm.train.layout import Layout, input_names, network_inputs
from fastlstm.train.loop import Task, TrainingError
from fastlstm.train.metrics import Yardstick
from fastlstm.train.network import Network
from fastlstm.train.plain_layers import Affine
from fastlstm.train.plots import plot_closed_loop
from fastlstm.train.report import report
from fastlstm.train.series import load_series
from fastlstm.train.split import Parts, Scaling, fit_scaling, split
from fastlstm.train.trainer import check_accelerator, is_main, surroundings, train, unwritten

if TYPE_CHECKING:
    from fastlstm.model import Model
    from fastlstm.train.recipe_tables import Recipe
    from fastlstm.train.series import Series


@dataclass(frozen=True)
class FitResult:
    """What a run left: its folder, the best model, and the figures of metrics.json."""

    folder: Path
    model: Model
    metrics: dict[str, Any]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the run folder, for a person to look at."""
        return run_folder.files(self.folder)


@dataclass(frozen=True, eq=False)
class _Plan:
    """A recipe with its series read, cut and measured."""

    recipe: Recipe
    series: Series
    parts: Parts
    scaling: Scaling | None
    layout: Layout

    @classmethod
    def of(cls, recipe: Recipe) -> _Plan:
        series = load_series(recipe.series)
        parts = split(series, recipe)
        scaling = fit_scaling(series, parts, recipe.series)
        layout = Layout.of_recipe(recipe, series)
        steps = recipe.evaluation.steps
        if steps and (why := obstacle(layout, series, steps)):
            raise RecipeError(f"{recipe.name}: evaluation.steps: {why}")
        return cls(recipe, series, parts, scaling, layout)


def fit(
    recipe: Recipe, run_folder_path: str | Path, *, resume: bool = False, progress: bool = True
) -> FitResult:
    """Train what `recipe` describes and leave model, history, metrics and plots in a run folder.

    `resume` goes on from the last epoch that a stopped run in that folder has completed, and gives
    what the run would have given uninterrupted; without it, what an interrupted run has left goes
    to `unfinished.old`. A recipe's variants are not looked at: see fit_variants. Raises
    RecipeError, SeriesError, or TrainingError where training diverges, the disk is full or there is
    nothing to resume; an earlier run's files then stay. With more than one device or node, the
    further processes that Lightning starts write nothing and get no metrics.
    """
    folder = Path(run_folder_path)
    work = folder / run_folder.UNFINISHED
    plan = _Plan.of(recipe)
    check_accelerator(recipe)
    with surroundings(recipe):
        task = _task(plan)
        untrained = _model(task.network, plan)
        last = run_folder.prepare(recipe, folder, resume) if is_main() else _last(work, resume)
        task.history_path = work / "history.csv"
        if plan.recipe.closed_loop.steps:
            _draw_closed_loops(task, plan, work / "closed_loop")
        try:
            train(task, work, last, progress)
        except TrainingError as error:
            raise TrainingError(f"{error}{_salvage(task, plan, work)}") from None
        if not is_main():
            return FitResult(folder, _model(task.network, plan), {})
        _load_best(task, work, recipe.training.keep)
        model = _model(task.network, plan)
    try:
        metrics = _describe(task, plan, model, untrained, work)
        run_folder.publish(work)
    except OSError as error:
        raise unwritten(error, work) from None
    return FitResult(folder, model, metrics)


def prepared(recipe: Recipe) -> Task:
    """What a recipe trains, with its first weights, for whoever has another use for it."""
    return _task(_Plan.of(recipe))


def _last(work: Path, resume: bool) -> Path | None:
    """What a further process goes on from: the first one has made the folder ready."""
    return work / run_folder.CHECKPOINT if resume else None


def _task(plan: _Plan) -> Task:
    """The network with its first weights, and the scaled series."""
    recipe, series, layout = plan.recipe, plan.series, plan.layout
    inputs = network_inputs(series, layout)
    network = _network(plan, inputs.shape[1])
    targets = series.targets
    if plan.scaling is not None:
        mean, deviation = _input_scaling(plan)
        inputs = (inputs - mean) / deviation
        targets = (targets - plan.scaling.target_mean) / plan.scaling.target_deviation
    dtype = np.float64 if recipe.training.precision == "64" else np.float32
    x, y = (torch.from_numpy(values.astype(dtype)) for values in (inputs, targets))
    loop = None
    if recipe.closed_loop.steps:
        loop = ClosedLoop(recipe.closed_loop, series, plan.parts, plan.scaling)
    return Task(network, recipe, layout, x, y, plan.parts, loop)


def _network(plan: _Plan, inputs: int) -> Network:
    recipe, layout = plan.recipe, plan.layout
    layers = [_sized(layer.model_dump(), plan) for layer in recipe.network.layers]
    try:
        network = Network.from_sizes(
            inputs,
            layers,
            dropout=recipe.network.dropout,
            learned_initial_state=recipe.network.learned_initial_state,
            forget_gate_bias=recipe.network.forget_gate_bias,
        )
    except RuntimeError as error:  # how torch says that there is not so much memory
        raise RecipeError(
            f"{recipe.name}: network.layers: cannot be made ({str(error).splitlines()[0]}): give "
            "smaller sizes"
        ) from None
    with torch.no_grad():
        found = network.eval()(torch.zeros(1, 1, inputs))[0].size(-1)
    network.train()
    if found != layout.size:
        raise RecipeError(
            f"{recipe.name}: network.layers: the last layer puts out {found} values, but there "
            f"{'is' if layout.size == 1 else 'are'} {layout.size} to predict "
            f"({_wanted(plan)}): end with "
            f'{{ kind = "Dense", output_size = {layout.size} }}'
        )
    return network


def _sized(layer: dict[str, Any], plan: _Plan) -> dict[str, Any]:
    """A layer of a recipe as Network.from_sizes takes it."""
    if layer["kind"] != "Residual":
        return layer
    inner = [_sized(entry, plan) for entry in layer["layers"]]
    sized: dict[str, Any] = {"kind": "Residual", "layers": inner}
    if layer["add"] == "target":
        series = plan.series
        missing = [name for name in series.target_columns if name not in series.input_columns]
        if missing:
            raise RecipeError(
                f'{plan.recipe.name}: network.layers: add = "target" adds the present value of '
                f"each target, so series.input must hold {', '.join(missing)} too: name "
                'it there, or use add = "input"'
            )
        places = [series.input_columns.index(name) for name in series.target_columns]
        sized["columns"] = [places[target] for target in plan.layout.target_of_output()]
    return sized


def _wanted(plan: _Plan) -> str:
    ahead, _, quantiles = plan.layout.shape
    text = ", ".join(plan.series.target_columns)
    if ahead > 1:
        text += f", at {ahead} steps ahead each"
    if plan.layout.quantiles:
        text += f", {quantiles} quantiles each"
    return text


def _input_scaling(plan: _Plan) -> tuple[Any, Any]:
    """Mean and deviation of everything that goes in, known columns included."""
    assert plan.scaling is not None
    mean, deviation = plan.scaling.input_mean, plan.scaling.input_deviation
    if plan.series.known is None:
        return mean, deviation
    ahead = len(plan.layout.ahead)
    rows = np.concatenate([np.arange(s.first, s.end) for s in plan.parts.train])
    known = plan.series.known[rows]
    known_mean, known_deviation = known.mean(0), known.std(0)
    if plan.recipe.series.scaling == "divide":
        known_mean, known_deviation = 0 * known_mean, 0 * known_mean + deviation[0]
    return (
        np.concatenate([mean, np.tile(known_mean, ahead)]),
        np.concatenate([deviation, np.tile(np.where(known_deviation, known_deviation, 1), ahead)]),
    )


def _model(network: Network, plan: _Plan) -> Model:
    """The network as it is now, between its scalings."""
    layers: list[torch.nn.Module] = list(network.layers)
    recipe, series, layout, scaling = plan.recipe, plan.series, plan.layout, plan.scaling
    if scaling is not None:
        mean, deviation = _input_scaling(plan)
        into = Affine(1 / deviation, -mean / deviation)
        target = np.array(layout.target_of_output())
        out = Affine(scaling.target_deviation[target], scaling.target_mean[target])
        layers = [into, *layers, out]
    metadata: dict[str, Any] = {
        "recipe": recipe.name,
        "series": series.name,
        "unit": series.unit,
        "input_columns": list(series.input_columns),
        "target_columns": list(series.target_columns),
        "horizon": layout.horizon,
        "direct": layout.direct,
        "quantiles": list(layout.quantiles),
        "window": recipe.windows.length,
        "loss_at": recipe.windows.loss_at,
        "period": recipe.evaluation.period,
        **_yardstick(plan),
    }
    if series.known_columns:
        metadata["known_columns"] = list(series.known_columns)
        metadata["network_inputs"] = list(input_names(series, layout))
    return Network(layers).to_model(metadata)


def _yardstick(plan: _Plan) -> dict[str, Any]:
    """What the training part says of each target, for whoever judges the model later."""
    table, segments = plan.recipe.evaluation, plan.parts.train
    measured = Yardstick.of_training(
        plan.series, segments, plan.scaling, table.period, table.accuracy_floor
    )
    return measured.metadata()


def _draw_closed_loops(task: Task, plan: _Plan, folder: Path) -> None:
    """Have a picture drawn of each epoch's closed-loop forecast."""
    if is_main():
        folder.mkdir(exist_ok=True)
    loop = task.closed_loop
    assert loop is not None

    def draw(epoch: int, forecast: Any) -> None:
        title = f"{plan.series.name}: closed loop after epoch {epoch}"
        plot_closed_loop(
            loop.truth[..., 0], forecast[..., 0].numpy(), folder / f"epoch-{epoch:04}.png", title
        )

    task.on_forecast = draw


def _load_best(task: Task, work: Path, name: str = "best") -> None:
    """Take the weights of the best epoch, or of the last one, from their checkpoint."""
    path = work / "checkpoints" / f"{name}.ckpt"
    best = torch.load(path, map_location="cpu", weights_only=True)
    task.to("cpu", torch.float32).load_state_dict(best["state_dict"])
    task.network.eval()


def _salvage(task: Task, plan: _Plan, work: Path) -> str:
    """Save the best network of a run that failed; return the sentence that says so."""
    if not (work / "checkpoints" / "best.ckpt").is_file() or not is_main():
        return ""
    _load_best(task, work)
    try:
        path = _model(task.network, plan).save(work / "model.safetensors")
    except OSError:  # the disk is full, and what has failed before says so
        return ""
    return f"; the best network before that is in {path}"


def _describe(task: Task, plan: _Plan, model: Model, untrained: Model, work: Path) -> Any:
    """Save the model, its figures on the test part and the plots."""
    recipe, best = plan.recipe, task.kept()
    figures = report(
        recipe, model, untrained, plan.series, plan.parts, plan.scaling, task.history, work
    )
    metrics: dict[str, Any] = {
        "recipe": recipe.name,
        **figures,
        "horizon": plan.layout.horizon,
        "parameters": model.num_parameters,
        "epochs": len(task.history),
        "best_epoch": int(best["epoch"]),
        "train_loss": best["train_loss"],
        "validation_loss": best["validation_loss"],
        "least_validation_loss": min(row["validation_loss"] for row in task.history),
        "seconds": round(task.seconds, 3),
        "seed": recipe.training.seed,
    }
    if task.closed_loop is not None:
        metrics["closed_loop"] = {
            "near_steps": task.closed_loop.near,
            "near_rmse": best["closed_loop_near"],
            "steps": task.closed_loop.steps,
            "rmse": best["closed_loop_all"],
        }
    model.save(work / "model.safetensors")
    task.write_history()
    (work / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return metrics


class _CallableModule(ModuleType):
    """Lets `fastlstm.train.fit` be called: importing this file binds that name to the file."""

    def __call__(self, *args: Any, **kwargs: Any) -> FitResult:
        return fit(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
