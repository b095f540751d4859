"""A run's folder: what it holds, what may be replaced in it, and how a finished run moves in.

A run works in the folder's `unfinished/` and moves its files up when all of them are there, so that
no failure ever costs what an earlier run left.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fastlstm.errors import RecipeError
from fastlstm.train.loop import TrainingError
from fastlstm.train.recipe import load_recipe, to_toml

if TYPE_CHECKING:
    from fastlstm.train.recipe_tables import Recipe

UNFINISHED = "unfinished"
# The first and the last of a finished run's files: the model comes last, so that what describes it
# is there before it is.
FIRST, LAST = ("recipe.toml", "history.csv", "metrics.json"), ("model.safetensors",)
# What a folder must hold before training replaces what is in it.
OWN = ("recipe.toml", "metrics.json", "model.safetensors")
# Folders and pictures that a run may leave beside those.
MORE = ("checkpoints", "closed_loop", "logs")
CHECKPOINT = Path("checkpoints", "last.ckpt")
PICTURES = ("loss.png", "forecast.png", "fan.png", "horizon.png")


def files(folder: Path) -> tuple[Path, ...]:
    """The files of a finished run, for a person to look at."""
    named = (folder / name for name in (*FIRST, *PICTURES, *LAST))
    return tuple(path for path in named if path.is_file())


def publish(work: Path) -> None:
    """Move what a finished run has made up into its folder, in place of an earlier run's."""
    folder = work.parent
    made = {path.name for path in work.iterdir()}
    pictures = sorted(made - {*FIRST, *LAST, *MORE})
    for name in (*MORE, *PICTURES):
        if name not in made:
            _remove(folder / name)
    for name in (*MORE, *FIRST, *pictures, *LAST):
        if name in made:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            os.replace(work / name, folder / name)
    shutil.rmtree(work)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def prepare(recipe: Recipe, folder: Path, resume: bool) -> Path | None:
    """Make the working folder ready; return the checkpoint to go on from, if any.

    Raises RecipeError or TrainingError, and changes nothing, where that folder is not the run's own
    or holds nothing to resume.
    """
    work = folder / UNFINISHED
    if not resume:
        _check_ours(folder)
        if work.exists():
            # Hours of an interrupted run are not lost for want of a flag.
            aside = work.with_name(f"{UNFINISHED}.old")
            shutil.rmtree(aside, ignore_errors=True)
            work.rename(aside)
        work.mkdir(parents=True)
    else:
        source = work if (work / CHECKPOINT).is_file() else folder
        if not (source / CHECKPOINT).is_file():
            raise TrainingError(
                f"{folder}: nothing to resume: no run here has completed an epoch; train without "
                "resuming"
            )
        _check_same(recipe, load_recipe(source), folder)
        _check_readable(source / CHECKPOINT)
        if source == folder:
            shutil.copytree(folder / "checkpoints", work / "checkpoints", dirs_exist_ok=True)
    (work / "recipe.toml").write_text(to_toml(recipe), "utf-8")
    return work / CHECKPOINT if resume else None


def _check_ours(folder: Path) -> None:
    """Refuse a folder that holds files of a run's names without being a run's folder."""
    if all((folder / name).exists() for name in OWN) or (folder / UNFINISHED).exists():
        return
    for name in (*MORE, *FIRST, *PICTURES, *LAST):
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
