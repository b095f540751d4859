"""What a training run tells of its model: every figure on the test part, and the pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlstm.train import backtest, plots
from fastlstm.train.baselines import LinearMap
from fastlstm.train.evaluation import Forecasts, describe, make_forecasts, naive_figures
from fastlstm.train.layout import Layout
from fastlstm.train.metrics import Yardstick, errors
from fastlstm.train.replay import streamed, windowed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastlstm.model import Model
    from fastlstm.train.recipe_tables import Recipe
    from fastlstm.train.series import Series
    from fastlstm.train.split import Parts, Scaling


def report(
    recipe: Recipe,
    model: Model,
    untrained: Model,
    series: Series,
    parts: Parts,
    scaling: Scaling | None,
    history: Sequence[dict[str, float]],
    folder: Path,
) -> dict[str, Any]:
    """Measure `model` on the test part, draw it into `folder`, and return the figures.

    Both models read and write the series' own unit. What comes back is JSON without NaN: at the top
    series, unit, part, steps (how many origins), protocol, the figures of metrics.errors with
    naive_rmse, naive_mae and ratio; `before` (rmse and mae of the untrained model), `streamed` and
    `windowed` where the recipe trains on windows, `baselines`, `by_horizon`, `pinball` and
    `coverage` where there is something to tell, `backtest` where evaluation.steps asks for more
    than the model puts out at once, `published`, `metric` and `selected_on`.
    """
    layout = Layout.of_recipe(recipe, series)
    table, windows = recipe.evaluation, recipe.windows
    yardstick = Yardstick.of_training(
        series, parts.train, scaling, table.period, table.accuracy_floor
    )
    forecasts = make_forecasts(
        model, series, parts.test, layout, window=windows.length, loss_at=windows.loss_at
    )
    figures = {**describe(forecasts, series, yardstick), "part": "test"}
    figures["before"] = _before(untrained, series, forecasts, windows.length, yardstick)
    figures["baselines"] = naive_figures(forecasts, series, yardstick, table.period)
    linear = None
    if table.linear_window:
        linear = LinearMap.fit(
            series, parts.train, parts.validation, layout.ahead, table.linear_window
        )
    if linear is not None:
        figures["baselines"]["linear map"] = errors(
            forecasts.truth, linear.predict(series, forecasts.rows), yardstick
        )
    rolled = _rolled(recipe, model, series, parts, layout)
    if rolled is not None:
        figures["backtest"] = backtest.described(rolled, series, yardstick, table.period)
        figures.setdefault("by_horizon", figures["backtest"]["by_horizon"])
    figures |= {
        "published": dict(table.published),
        "metric": table.metric,
        "selected_on": _selected_on(recipe, parts),
    }
    far = forecasts if len(layout.ahead) > 1 else rolled
    plots.plot_loss(history, folder / "loss.png", series.name, _loss_name(recipe))
    plots.plot_forecast(series, forecasts, figures, folder / "forecast.png")
    if far is not None:
        plots.plot_fan(series, far, folder / "fan.png")
        plots.plot_horizon(series, far, folder / "horizon.png", table.period, linear)
    return figures


def _selected_on(recipe: Recipe, parts: Parts) -> str:
    """What the kept epoch was chosen by: figures on that same part flatter the model."""
    if recipe.training.keep == "last":
        return "nothing"
    return "validation" if parts.validation else "test"


def _before(
    untrained: Model, series: Series, forecasts: Forecasts, window: int, yardstick: Yardstick
) -> dict[str, float | None]:
    """RMSE and MAE that the network had before it was trained, at the same origins."""
    layout, rows = forecasts.layout, forecasts.rows
    values = (
        windowed(untrained, series, layout, rows, window)
        if forecasts.protocol == "windowed"
        else streamed(untrained, series, layout, rows)
    )
    found = errors(forecasts.truth, values[..., layout.median], yardstick)
    return {"rmse": found["rmse"], "mae": found["mae"]}


def _rolled(
    recipe: Recipe, model: Model, series: Series, parts: Parts, layout: Layout
) -> Forecasts | None:
    """The rolling forecasts of a one-step model that feeds on itself, where the recipe asks."""
    steps, table = recipe.evaluation.steps, recipe.evaluation
    if steps <= len(layout.ahead) or backtest.obstacle(layout, series, steps) is not None:
        return None
    room = max((s.end - s.first for s in parts.test), default=0)
    if room < steps:
        return None
    return backtest.roll(
        model, series, table.origins, steps, period=table.period, segments=parts.test
    )


def _loss_name(recipe: Recipe) -> str:
    return "pinball" if recipe.network.quantiles else recipe.training.loss
