"""A recipe in, a run folder out: Lightning does the loop.

A run works in the folder's `unfinished/` and moves its files up when all of them are there, so that
no failure ever costs what an earlier run left.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.seed import isolate_rng

from fastlstm.errors import RecipeError
from fastlstm.train.evaluation import predict, scores
from fastlstm.train.loop import EpochBar, Task, TrainingError, print_line
from fastlstm.train.network import Affine, Network
from fastlstm.train.plots import plot_forecast, plot_loss
from fastlstm.train.recipe import Recipe, load_recipe, to_toml
from fastlstm.train.series import Parts, Scaling, Series, fit_scaling, load_series, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlstm.model import Model

UNFINISHED = "unfinished"
# In this order: the model comes last, so that what describes it is there before it is.
FILES = (
    "recipe.toml",
    "history.csv",
    "metrics.json",
    "loss.png",
    "forecast.png",
    "model.safetensors",
)
# What a folder must hold before training replaces what is in it.
OWN = ("recipe.toml", "metrics.json", "model.safetensors")


@dataclass(frozen=True)
class FitResult:
    """What a run left: its folder, the best model, and the figures of metrics.json."""

    folder: Path
    model: Model
    metrics: dict[str, Any]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the run folder, for a person to look at."""
        return tuple(self.folder / name for name in FILES)


def fit(
    recipe: Recipe, run_folder: str | Path, *, resume: bool = False, progress: bool = True
) -> FitResult:
    """Train what `recipe` describes and leave model, history, metrics and plots in `run_folder`.

    `resume` goes on from the last epoch that a stopped run in that folder has completed, and gives
    what the run would have given uninterrupted; without it, what an interrupted run has left goes
    to `unfinished.old`. Raises RecipeError, SeriesError, or TrainingError
    where training diverges or there is nothing to resume; an earlier run's files then stay.
    """
    folder = Path(run_folder)
    work = folder / UNFINISHED
    series = load_series(recipe.series)
    parts = split(series, recipe)
    scaling = fit_scaling(series, parts) if recipe.series.scaling == "standard" else None
    _check_accelerator(recipe)
    with _surroundings(recipe):
        task = _task(recipe, series, parts, scaling)
        last = _prepare(recipe, folder, resume)
        task.history_path = work / "history.csv"
        try:
            _train(task, work / "checkpoints", last, progress)
        except TrainingError as error:
            raise TrainingError(f"{error}{_salvage(task, scaling, series, work)}") from None
        model = _best_model(task, scaling, series, work)
    metrics = _describe(task, model, series, work)
    for name in ("checkpoints", *FILES):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        os.replace(work / name, folder / name)
    shutil.rmtree(work)
    return FitResult(folder, model, metrics)


@contextmanager
def _surroundings(recipe: Recipe) -> Iterator[None]:
    """Seeds, threads, determinism and logging for one run; all as before when it ends."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    environment = {name: os.environ.get(name) for name in _LIGHTNING_VARIABLES}
    # Lightning announces devices, tips and each stop; the bar and the run folder say what matters.
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with isolate_rng(), warnings.catch_warnings():
        for message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            torch.set_num_threads(recipe.training.threads)
            seed_everything(recipe.training.seed, verbose=False)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            for name, value in environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


_LIGHTNING_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG")
_KNOWN_WARNINGS = (
    # Lightning's own affair with newer torch; nothing that a recipe could change.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # A resumed run: that is the point.
    r"Checkpoint directory .* exists and is not empty",
)


def _has_gpu() -> bool:
    return CUDAAccelerator.is_available() or MPSAccelerator.is_available()


def _check_accelerator(recipe: Recipe) -> None:
    if recipe.training.accelerator == "gpu" and not _has_gpu():
        raise TrainingError(
            f"{recipe.name}: no gpu that torch can use was found on this machine: set "
            'training.accelerator = "auto" to take what is there'
        )


def _task(recipe: Recipe, series: Series, parts: Parts, scaling: Scaling | None) -> Task:
    """The network with its first weights, and the scaled series."""
    layers = [layer.model_dump() for layer in recipe.network.layers]
    try:
        network = Network.from_sizes(
            series.inputs.shape[1],
            layers,
            dropout=recipe.network.dropout,
            learned_initial_state=recipe.network.learned_initial_state,
        )
    except RuntimeError as error:  # how torch says that there is not so much memory
        raise RecipeError(
            f"{recipe.name}: network.layers: cannot be made ({str(error).splitlines()[0]}): give "
            "smaller sizes"
        ) from None
    wanted = len(series.target_columns)
    found = layers[-1].get("output_size") or layers[-1]["hidden_size"]
    if found != wanted:
        raise RecipeError(
            f"{recipe.name}: network.layers: the last layer puts out {found} values, but there "
            f"{'is' if wanted == 1 else 'are'} {wanted} to predict "
            f"({', '.join(series.target_columns)}): end with "
            f'{{ kind = "Dense", output_size = {wanted} }}'
        )
    if recipe.training.level_shift and series.input_columns != series.target_columns:
        raise RecipeError(
            f"{recipe.name}: training.level_shift moves inputs and targets alike, so it needs "
            f"series.target to be series.input, found {', '.join(series.target_columns)} and "
            f"{', '.join(series.input_columns)}: set it to 0"
        )
    inputs, targets = series.inputs, series.targets
    if scaling is not None:
        inputs = (inputs - scaling.input_mean) / scaling.input_deviation
        targets = (targets - scaling.target_mean) / scaling.target_deviation
    x, y = (torch.from_numpy(values.astype(np.float32)) for values in (inputs, targets))
    return Task(network, recipe, x, y, parts)


def _prepare(recipe: Recipe, folder: Path, resume: bool) -> Path | None:
    """Make the working folder ready; return the checkpoint to go on from, if any."""
    work = folder / UNFINISHED
    last = Path("checkpoints", "last.ckpt")
    if not resume:
        _check_ours(folder)
        if work.exists():
            # Hours of an interrupted run are not lost for want of a flag.
            aside = work.with_name(f"{UNFINISHED}.old")
            shutil.rmtree(aside, ignore_errors=True)
            work.rename(aside)
        work.mkdir(parents=True)
    else:
        source = work if (work / last).is_file() else folder
        if not (source / last).is_file():
            raise TrainingError(
                f"{folder}: nothing to resume: no run here has completed an epoch; train without "
                "resuming"
            )
        _check_same(recipe, load_recipe(source), folder)
        _check_readable(source / last)
        if source == folder:
            shutil.copytree(folder / "checkpoints", work / "checkpoints", dirs_exist_ok=True)
    (work / "recipe.toml").write_text(to_toml(recipe), "utf-8")
    return work / last if resume else None


def _check_ours(folder: Path) -> None:
    """Refuse a folder that holds files of a run's names without being a run's folder."""
    if all((folder / name).exists() for name in OWN) or (folder / UNFINISHED).exists():
        return
    for name in ("checkpoints", *FILES):
        if (folder / name).exists():
            raise TrainingError(
                f"{folder}: holds {name}, which training would replace, but is no run folder: "
                "move it away, or train into another folder"
            )


def _check_same(recipe: Recipe, earlier: Recipe, folder: Path) -> None:
    """Refuse to go on with another recipe; a constant learning rate allows another length."""
    free = {"patience", "threads", "accelerator"}
    if recipe.optimiser.schedule == "constant":
        free.add("max_epochs")
    ours, theirs = (r.model_dump(exclude={"training": free}) for r in (recipe, earlier))
    changed = [
        section if not isinstance(ours[section], dict) else f"{section}.{key}"
        for section in ours
        for key in (ours[section] if isinstance(ours[section], dict) else [None])
        if (ours[section] if key is None else ours[section][key])
        != (theirs[section] if key is None else theirs[section][key])
    ]
    if changed:
        raise RecipeError(
            f"{folder}: this run was started with another recipe; changed: {', '.join(changed)}; "
            "resume with the old values, or train anew in another folder"
        )


def _check_readable(checkpoint: Path) -> None:
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"{checkpoint}: cannot be read: {reason.split('. ')[0]}: it is damaged; train anew "
            "without resuming"
        ) from None


class _Checkpoints(ModelCheckpoint):
    """Lightning's own, but a folder that was moved still knows its best epoch."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state over with every path in the folder where the run is now."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath), Path(path).name)) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {name: here(state_dict[name]) for name in paths}
        super().load_state_dict(
            {**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath}
        )


def _train(task: Task, checkpoints: Path, last: Path | None, progress: bool) -> None:
    """Let Lightning run the epochs that are left."""
    training = task.recipe.training
    callbacks: list[Any] = [
        EarlyStopping("validation_loss", patience=training.patience),
        _Checkpoints(
            checkpoints,
            "best",
            monitor="validation_loss",
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
    ]
    if progress:
        callbacks.append(EpochBar())
    trainer = Trainer(
        max_epochs=training.max_epochs,
        accelerator=training.accelerator,
        devices=1,
        callbacks=callbacks,
        gradient_clip_val=training.gradient_clip or None,
        deterministic=True,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=checkpoints.parent,
    )
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, ckpt_path=last, weights_only=True)
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        # Lightning answers Ctrl-C by ending the process and leaves Ctrl-C switched off; whether the
        # process ends is for the caller to say.
        signal.signal(signal.SIGINT, interrupt)
        if progress:
            print_line(f"stopped after {len(task.history)} epochs; resume to go on from there")
        raise KeyboardInterrupt from None


def _best_model(task: Task, scaling: Scaling | None, series: Series, work: Path) -> Model:
    """The best epoch's network between its scalings."""
    best = torch.load(work / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)
    task.to("cpu").load_state_dict(best["state_dict"])
    layers: list[torch.nn.Module] = list(task.network.layers)
    if scaling is not None:
        into = Affine(1 / scaling.input_deviation, -scaling.input_mean / scaling.input_deviation)
        layers = [into, *layers, Affine(scaling.target_deviation, scaling.target_mean)]
    return Network(layers).to_model(
        {
            "recipe": task.recipe.name,
            "series": series.name,
            "unit": series.unit,
            "input_columns": list(series.input_columns),
            "target_columns": list(series.target_columns),
            "horizon": task.recipe.windows.horizon,
        }
    )


def _salvage(task: Task, scaling: Scaling | None, series: Series, work: Path) -> str:
    """Save the best network of a run that failed; return the sentence that says so."""
    if not (work / "checkpoints" / "best.ckpt").is_file():
        return ""
    path = _best_model(task, scaling, series, work).save(work / "model.safetensors")
    return f"; the best network before that is in {path}"


def _describe(task: Task, model: Model, series: Series, work: Path) -> dict[str, Any]:
    """Save the model, its figures on the test part and the two plots."""
    recipe, horizon = task.recipe, task.recipe.windows.horizon
    predicted = predict(model, series.inputs)
    first = task.parts.validation
    losses = [row["validation_loss"] for row in task.history]
    metrics = {
        "recipe": recipe.name,
        "part": "test",
        **scores(series, predicted, first, horizon),
        "horizon": horizon,
        "parameters": model.num_parameters,
        "epochs": len(task.history),
        "best_epoch": int(task.history[int(np.argmin(losses))]["epoch"]),
        "seconds": round(task.seconds, 3),
        "seed": recipe.training.seed,
    }
    model.save(work / "model.safetensors")
    task.write_history()
    (work / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    plot_loss(task.history, work / "loss.png", series.name, recipe.training.loss)
    plot_forecast(series, predicted, first, horizon, metrics, work / "forecast.png")
    return metrics


class _CallableModule(ModuleType):
    """Lets `fastlstm.train.fit` be called: importing this file binds that name to the file."""

    def __call__(self, *args: Any, **kwargs: Any) -> FitResult:
        return fit(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
