"""The learning-rate finder: the loss while the rate rises, and where it falls fastest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning.pytorch.tuner.tuning import Tuner

from fastlstm.errors import RecipeError
from fastlstm.train.fit import prepared
from fastlstm.train.loop import TrainingError
from fastlstm.train.plots import plot_learning_rates
from fastlstm.train.trainer import check_accelerator, surroundings, trainer_of

if TYPE_CHECKING:
    from fastlstm.train.recipe_tables import Recipe


class Found(NamedTuple):
    """What the search gives: a rate to begin with, what was tried, and the picture of it."""

    suggestion: float
    rates: list[float]
    losses: list[float]
    picture: Path


def find_learning_rate(recipe: Recipe, folder: str | Path, *, steps: int = 100) -> Found:
    """Train a few batches with rates from 1e-6 to 1, and suggest the one of the steepest fall.

    As L. N. Smith, Cyclical learning rates for training neural networks (2017); the search is
    Lightning's. Draws learning_rate.png into `folder` and changes nothing else there. Raises
    RecipeError for L-BFGS, whose steps are no gradient steps, and TrainingError where no rate makes
    the loss fall.
    """
    if recipe.optimiser.name == "lbfgs":
        raise RecipeError(
            f"{recipe.name}: optimiser.name: expected one that takes gradient steps, found lbfgs: "
            "its learning rate is a part of a Newton step, so begin with 1 and halve it"
        )
    check_accelerator(recipe)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with surroundings(recipe):
        task = prepared(recipe)
        trainer = trainer_of(task, folder, progress=False, only_try=True)
        finder: Any = Tuner(trainer).lr_find(
            task, min_lr=1e-6, max_lr=1.0, num_training=steps, update_attr=False
        )
        suggestion = finder.suggestion()
    if suggestion is None:
        raise TrainingError(
            f"{recipe.name}: no learning rate from 1e-6 to 1 made the loss fall within "
            f"{steps} batches: look at the series and its scaling"
        )
    rates, losses = finder.results["lr"], finder.results["loss"]
    picture = folder / "learning_rate.png"
    plot_learning_rates(rates, losses, suggestion, picture, recipe.name)
    return Found(float(suggestion), rates, losses, picture)
