"""`fastlstm evaluate` and `fastlstm forecast`: a model and a series in, figures or values out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastlstm.cli_output import console, room_for, telling, write_json

if TYPE_CHECKING:
    from fastlstm.model import Model
    from fastlstm.train.evaluation import Forecasts
    from fastlstm.train.series import Series

EVALUATE = "Example: fastlstm evaluate model.safetensors --data new.csv --column sunspots"
FORECAST = "Example: fastlstm forecast model.safetensors --data sunspots.csv --time year -n 22"

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file (.safetensors).")]
Data = Annotated[
    Path, typer.Option("--data", help="The series: CSV, Parquet or NumPy (.npy, .npz).")
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="A column to read; give it again for each input."),
]
Time = Annotated[str | None, typer.Option("--time", help="The column that holds the time.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures here, as JSON.")]


def evaluate(
    model: ModelFile,
    data: Data,
    columns: Columns = None,
    time: Time = None,
    sequence: Annotated[
        str | None, typer.Option("--sequence", help="The column that says which sequence it is.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line of the file is a whole sequence.")
    ] = False,
    period: Annotated[
        int | None,
        typer.Option(min=1, help="The season of the seasonal naive forecast, in steps."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--backtest", metavar="N", min=1, help="Forecast N steps from many origins."),
    ] = None,
    origins: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="With --backtest: steps from one origin to the next; about 200 origins unless "
            "told.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FOLDER", help="Draw it into this folder.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Run a series through a model and measure its errors beside naive forecasts.

    As one stream and, of a model trained on windows, from a fresh window before each forecast too.
    With --backtest: forecasts of N steps from many origins, each as it would have been made then.
    """
    import fastlstm
    from fastlstm import cli_series, cli_tables

    if origins is not None and steps is None:
        raise typer.BadParameter("is for --backtest: add that", param_hint="--origins")
    room_for(json_file)
    if plot is not None:
        plot.mkdir(parents=True, exist_ok=True)
    network = fastlstm.load(model)
    series = cli_series.read(network, data, columns, time, sequence, lines)
    with telling("Evaluating") as tell:
        tell(f"{series.name}, {len(series)} samples")
        forecasts, figures = (
            _evaluate(network, series, period)
            if steps is None
            else _backtest(network, series, steps, origins or 0, period)
        )
    title = "Evaluated" if steps is None else "Backtest"
    console().print(cli_tables.scores(title, figures))
    write_json(json_file, figures)
    if plot is not None:
        season = period or int(network.metadata.get("period", 0))
        for path in _draw(series, forecasts, figures, plot, season):
            typer.echo(f"wrote {path}")


def _evaluate(
    network: Model, series: Series, period: int | None
) -> tuple[Forecasts, dict[str, Any]]:
    from fastlstm.train.evaluation import judge

    judged = judge(network, series, period=period)
    return judged.forecasts, judged.figures


def _backtest(
    network: Model, series: Series, steps: int, origins: int, period: int | None
) -> tuple[Forecasts, dict[str, Any]]:
    from fastlstm.train import backtest
    from fastlstm.train.metrics import Yardstick

    season = int(network.metadata.get("period", 0)) if period is None else period
    forecasts = backtest.roll(network, series, origins, steps, period=season)
    yardstick = Yardstick.of_metadata(network.metadata)
    return forecasts, backtest.described(forecasts, series, yardstick, season)


def _draw(
    series: Series, forecasts: Forecasts, figures: dict[str, Any], folder: Path, period: int
) -> list[Path]:
    from fastlstm.train import plots

    paths = [folder / "forecast.png"]
    plots.plot_forecast(series, forecasts, figures, paths[0])
    if len(forecasts.layout.ahead) > 1:
        paths += [folder / "fan.png", folder / "horizon.png"]
        plots.plot_fan(series, forecasts, paths[1])
        plots.plot_horizon(series, forecasts, paths[2], period)
    return paths


def forecast(
    model: ModelFile,
    data: Data,
    steps: Annotated[int, typer.Option("-n", "--steps", min=1, help="How many steps ahead.")],
    columns: Columns = None,
    time: Time = None,
    known: Annotated[
        Path | None,
        typer.Option(
            "--known",
            metavar="FILE",
            help="The rows to come of the columns that the model knows ahead of time.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write CSV here; else to the screen.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the forecast here (.png).")
    ] = None,
) -> None:
    """Stream a series in, then go on from its end: each prediction is the next input.

    A model that forecasts many steps at once prints these. Quantiles have a column each.
    """
    import fastlstm
    from fastlstm import cli_series

    room_for(output, plot)
    network = fastlstm.load(model)
    series = cli_series.read(network, data, columns, time)
    continued = cli_series.carry_on(network, series, steps, known)
    if output is None:
        sys.stdout.write(continued.csv())
    else:
        output.write_text(continued.csv(), "utf-8")
        typer.echo(f"wrote {output}")
    if plot is not None:
        continued.plot(plot)
        typer.echo(f"wrote {plot}", err=output is None)
