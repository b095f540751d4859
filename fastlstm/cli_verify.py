"""`fastlstm verify`: a model on every road, and what is exported of it on every runtime."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path  # noqa: TC003  typer reads it from the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastlstm.cli_output import complain, console, room_for, telling, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlstm.export.matrix import Matrix
    from fastlstm.model import Model

EXAMPLE = "Example: fastlstm verify model.safetensors --steps 2000 --json report.json"
CELLS, MODEL = "Cell by cell", "The model"
# So many of what is wrong are named in the one line of the error.
SHOWN = 6


def verify(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL",
            help="A model file (.safetensors); with --all it may be left out, for the built-in "
            "cells.",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Length of the random stream for the roads.")
    ] = 10_000,
    all_runtimes: Annotated[
        bool,
        typer.Option("--all", help="Also export to ONNX and run the file on every runtime."),
    ] = False,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With --all: also every model.safetensors in and below this folder.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here, as JSON.")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="With --all: also write the table of the runtimes here, as a page."),
    ] = None,
) -> None:
    """Run every road of this machine over one random stream and compare it with the reference.

    With --all, the model's ONNX file also runs on every runtime: step by step, whole, in pieces, as
    a batch and with variable lengths. Without a MODEL, a small model of every kind does.

    The exit code is 1 if anything leaves its bound. What is missing is listed with what to install.
    """
    if not all_runtimes:
        for name, given in (("--models", models), ("--markdown", markdown)):
            if given is not None:
                raise typer.BadParameter("is about the runtimes: add --all", param_hint=name)
        if model is None:
            raise typer.BadParameter(
                "expected a model file, or --all for the built-in cells on every runtime",
                param_hint="MODEL",
            )
    room_for(json_file, markdown)
    import fastlstm
    from fastlstm import cli_tables
    from fastlstm.cli_matrix import listed

    found: dict[str, Any] = {"ok": True}
    wrong: list[str] = []
    network = None if model is None else fastlstm.load(model)
    folder = {} if models is None else _in_folder(models)
    if network is not None:
        with telling("Verifying") as tell:
            report = fastlstm.verify(network, steps=steps, progress=tell)
        console().print(cli_tables.verdicts(report))
        found = report.to_dict()
        wrong += [row.road for row in report.rows if row.verdict in ("wrong", "failed")]
        if not report.ok and not wrong:
            wrong.append("no road could run")
    if all_runtimes:
        named = None if model is None or network is None else (model.name, network)
        matrices = _matrices(named, models, folder)
        for key, (_, matrix) in matrices.items():
            found[key] = matrix.to_dict()
            wrong += [f"{cell.model} on {cell.runtime}" for cell in matrix.faults]
            if not matrix.ok and not matrix.faults:
                wrong.append("no runtime could run")
        found["ok"] = not wrong
        if markdown is not None:
            _write_page(markdown, dict(matrices.values()), model, models)
    write_json(json_file, found)
    if wrong:
        complain(f"not within bounds: {listed(tuple(wrong), SHOWN)}")
        raise typer.Exit(1)


def _matrices(
    named: tuple[str, Model] | None, folder: Path | None, models: dict[str, Callable[[], Model]]
) -> dict[str, tuple[str, Matrix]]:
    """Run and print each matrix that was asked for; by its name in the JSON, with its title."""
    from fastlstm import cli_matrix
    from fastlstm.export.cells import CELLS as cells
    from fastlstm.export.matrix import matrix

    asked: dict[str, tuple[str, Any]] = {}
    if named is None:
        asked["cells"] = (CELLS, cells)
    else:
        name, network = named
        asked["model"] = (MODEL, {name: partial(_same, network)})
    if folder is not None:
        asked["models"] = (f"Every model in {folder}", models)
    done = {}
    for key, (title, makers) in asked.items():
        with telling("Verifying") as tell:
            done[key] = (title, matrix(makers, progress=tell))
        show = cli_matrix.one if key == "model" else cli_matrix.grid
        console().print(show(title, done[key][1]))
    return done


def _same(model: Model) -> Model:
    return model


def _in_folder(folder: Path) -> dict[str, Callable[[], Model]]:
    """Every model in and below a folder, by the folder that it lies in."""
    import fastlstm

    found: dict[str, Callable[[], Model]] = {}
    for path in sorted(folder.rglob("model.safetensors")):
        name = path.parent.relative_to(folder).as_posix()
        found[folder.name if name == "." else name] = partial(_same, fastlstm.load(path))
    if not found:
        raise typer.BadParameter(
            f"{folder}: expected a folder with a model.safetensors in or below it, as `fastlstm "
            "train` leaves them; found none",
            param_hint="--models",
        )
    return found


def _write_page(
    path: Path, matrices: dict[str, Matrix], model: Path | None, models: Path | None
) -> None:
    from fastlstm import cli_matrix_page

    words = ["fastlstm", "verify", *([str(model)] if model else []), "--all"]
    words += ["--models", str(models)] if models else []
    command = shlex.join([*words, "--markdown", str(path)])
    path.write_text(cli_matrix_page.page(command, matrices))
    typer.echo(f"wrote {path}")
