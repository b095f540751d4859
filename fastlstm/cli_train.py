"""`fastlstm train`: a recipe, or all its variants, into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastlstm.cli_output import console

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastlstm.train.recipe_tables import Recipe

EXAMPLE = "Example: fastlstm train sunspots --out runs/sunspots --set training.max_epochs=200"


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A ready recipe's name, a TOML file or a run folder; `list` names the ready.",
        ),
    ],
    data: Annotated[
        Path | None, typer.Option("--data", help="A series to read instead of the recipe's.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The run folder; without it, runs/ and the recipe's name."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that was stopped in the folder.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe."),
    ] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option("--variant", help="Train this variant only; give it again for more."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu or gpu, whatever the recipe says.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option("--devices", min=1, help="Devices, or processes on the CPU.")
    ] = None,
    nodes: Annotated[int | None, typer.Option("--nodes", min=1, help="Machines.")] = None,
    find_rate: Annotated[
        bool,
        typer.Option(
            "--find-learning-rate", help="Only try learning rates and draw the loss by them."
        ),
    ] = False,
) -> None:
    """Train a recipe into a run folder: model, metrics beside naive baselines, history, plots.

    A recipe with variants trains them all, one after the other, and compares them.
    """
    if recipe == "list" and not Path(recipe).exists():
        _list_recipes()
        return
    from fastlstm.train import load_recipe

    overrides = dict(map(_setting, settings or ()))
    for key, value in (("accelerator", device), ("devices", devices), ("nodes", nodes)):
        if value is not None:
            overrides[f"training.{key}"] = value
    plan = load_recipe(recipe, data=data, overrides=overrides)
    folder = out or Path("runs", plan.name)
    if find_rate:
        _find_rate(plan, folder, variants)
    elif plan.variants:
        _train_variants(plan, folder, variants, resume)
    else:
        if variants:
            raise typer.BadParameter(f"{plan.name} has no variants", param_hint="--variant")
        _train_one(plan, folder, resume)


def _train_one(plan: Recipe, folder: Path, resume: bool) -> None:
    from fastlstm import cli_tables
    from fastlstm.train import fit

    done = fit(plan, folder, resume=resume)
    if done.metrics:
        console().print(cli_tables.scores("Trained", done.metrics))
        _list_files(done.files)


def _train_variants(plan: Recipe, folder: Path, only: list[str] | None, resume: bool) -> None:
    from fastlstm import cli_tables
    from fastlstm.train.variants import fit_variants

    done = fit_variants(plan, folder, only=only or (), resume=resume)
    if done.metrics:
        console().print(cli_tables.variants(done.metrics))
        _list_files(done.files)


def _find_rate(plan: Recipe, folder: Path, only: list[str] | None) -> None:
    from fastlstm.train.learning_rate import find_learning_rate
    from fastlstm.train.recipe import variant_of

    if plan.variants:
        if not only or len(only) != 1:
            raise typer.BadParameter(
                f"{plan.name} has variants: say for which with --variant "
                f"({', '.join(plan.variants)})",
                param_hint="--find-learning-rate",
            )
        plan = variant_of(plan, only[0])
    found = find_learning_rate(plan, folder)
    typer.echo(f"suggested: --set optimiser.learning_rate={found.suggestion:.2g}")
    _list_files([found.picture])


def _list_recipes() -> None:
    from fastlstm import cli_tables
    from fastlstm.train.recipe import about, ready_recipes

    console().print(cli_tables.recipes({name: about(name) for name in ready_recipes()}))


def _list_files(paths: Iterable[Path]) -> None:
    typer.echo("Files to look at:")
    for path in paths:
        typer.echo(f"  {path}")


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE with the value read as TOML: a number, true, [1, 2]; a bare word is a string."""
    import tomllib

    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise typer.BadParameter(
            f"expected KEY=VALUE, such as training.max_epochs=50; found {text!r}",
            param_hint="--set",
        )
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
