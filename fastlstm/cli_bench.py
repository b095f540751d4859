"""`fastlstm bench`: the roads timed side by side, or steps beside loading their weights."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003  typer reads it from the annotations
from typing import Annotated

import typer

from fastlstm.cli_output import console, room_for, telling, write_json

EXAMPLE = "Example: fastlstm bench --hidden 8,32,64 --json bench.json"
PLAIN_SIZES = (8, 32, 64)


class Cell(StrEnum):
    """The recurrent layers."""

    LSTM = "LSTM"
    GRU = "GRU"
    RNN = "RNN"


def bench(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL]", help="A model file; without it, plain LSTMs."),
    ] = None,
    hidden: Annotated[
        str | None,
        typer.Option(
            help="Hidden sizes of the plain layers, separated by commas; "
            "8,32,64 unless told, and 15 sizes from 8 to 1024 with --roofline."
        ),
    ] = None,
    roofline: Annotated[
        bool,
        typer.Option(
            "--roofline", help="Time steps beside a loop that only loads the same weights."
        ),
    ] = False,
    cell: Annotated[
        Cell | None, typer.Option(help="With --roofline: the layer, LSTM unless told.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="With --roofline: draw both here (.png).")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here, as JSON.")
    ] = None,
) -> None:
    """Time every road of this machine side by side, after checking that it computes the same.

    With --roofline: time a layer's step beside a loop that only loads the same weights.
    """
    sizes = _sizes(hidden) if hidden is not None else None
    room_for(json_file, plot)
    if roofline:
        if model is not None:
            raise typer.BadParameter(
                "--roofline times plain layers of the sizes in --hidden: leave the model out",
                param_hint="MODEL",
            )
        _roofline(sizes, cell or Cell.LSTM, plot, json_file)
        return
    for name, given in (("--cell", cell), ("--plot", plot)):
        if given is not None:
            raise typer.BadParameter("is for --roofline: add that", param_hint=name)
    _roads(model, sizes, json_file)


def _roads(model: Path | None, sizes: list[int] | None, json_file: Path | None) -> None:
    import fastlstm
    import fastlstm.bench as timing
    from fastlstm import cli_tables

    models = (
        {model.stem: fastlstm.load(model)}
        if model is not None
        else timing.lstm_models(sizes or PLAIN_SIZES)
    )
    with telling("Timing") as tell:
        result = timing.compare(models, progress=tell)
    for table in cli_tables.timings(result):
        console().print(table)
    write_json(json_file, result.to_dict())


def _roofline(
    sizes: list[int] | None, cell: Cell, plot: Path | None, json_file: Path | None
) -> None:
    from fastlstm import cli_tables
    from fastlstm.bench import roofline

    with telling("Timing") as tell:
        result = roofline.measure_roofline(sizes or roofline.SIZES, cell.value, progress=tell)
    console().print(cli_tables.roofline(result))
    if plot is not None:
        roofline.draw(result, plot)
        typer.echo(f"wrote {plot}")
    write_json(json_file, result.to_dict())


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise typer.BadParameter(
            f"expected sizes of at least 1, separated by commas, such as 8,32,64; found {text!r}",
            param_hint="--hidden",
        )
    return sizes
