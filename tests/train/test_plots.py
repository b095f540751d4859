"""The pictures: what their lines hold, and that each is a file of a sane size."""

import struct

import numpy as np
import pytest

from fastlstm.train import plots
from fastlstm.train.evaluation import Forecasts
from fastlstm.train.layout import Layout
from fastlstm.train.series import Series


def lines(ax):
    """What is drawn, by its label up to a comma or bracket."""
    return {
        line.get_label().split(" (")[0].split(",")[0]: np.array(line.get_xydata(), float)
        for line in ax.lines
        if not line.get_label().startswith("_")
    }


def check_file(path):
    """A PNG between 300 and 4000 pixels wide and high, and not empty."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 300 < width < 4000
    assert 250 < height < 4000
    assert len(content) > 5000


def series_of(count, lengths=(), targets=1):
    values = np.random.default_rng(0).standard_normal((count, targets))
    names = tuple("ab"[:targets])
    return Series(
        "made", "m", values, values, names, names, 100 + np.arange(count), lengths=lengths
    )


def forecasts_of(series, rows, layout):
    r = np.random.default_rng(1)
    rows = np.array(rows)
    truth = series.targets[rows[:, None] + np.array(layout.ahead)]
    naive = np.broadcast_to(series.targets[rows][:, None], truth.shape)
    values = np.sort(r.standard_normal((len(rows), *layout.shape)), axis=-1)
    return Forecasts(layout, rows, truth, naive, {"streamed": values}, "streamed")


HISTORY = [
    {"epoch": k, "train_loss": 1 / (k + 1), "validation_loss": v, "learning_rate": 0.1}
    for k, v in enumerate((0.9, 0.4, 0.5))
]


def test_losses_by_epoch_and_the_best_one(tmp_path):
    figure = plots.plot_loss(HISTORY, tmp_path / "loss.png", "made", "mse")
    drawn = lines(figure.axes[0])
    assert drawn["training"].tolist() == [[0, 1], [1, 1 / 2], [2, 1 / 3]]
    assert drawn["validation"][:, 1].tolist() == [0.9, 0.4, 0.5]
    assert drawn["best: 0.4 in epoch 1"].tolist() == [[1, 0.4]]
    assert figure.axes[0].get_yscale() == "log"
    check_file(tmp_path / "loss.png")


def test_what_else_was_watched_and_monitored_is_shown(tmp_path):
    watched = [
        {**row, "accuracy": a, "closed_loop_near": a / 2, "closed_loop_all": 2 * a, "monitored": -a}
        for row, a in zip(HISTORY, (0.2, 0.3, 0.7), strict=True)
    ]
    figure = plots.plot_loss(watched, tmp_path / "loss.png", "made", "relative")
    losses, accuracy, loop = figure.axes
    assert lines(losses)["best: 0.5 in epoch 2"].tolist() == [[2, 0.5]]
    assert lines(accuracy)["accuracy"][:, 1].tolist() == [0.2, 0.3, 0.7]
    assert lines(loop)["near"][:, 1].tolist() == [0.1, 0.15, 0.35]
    assert lines(loop)["all"][:, 1].tolist() == [0.4, 0.6, 1.4]


@pytest.mark.parametrize("losses", [[0.5], [0.0], [0.5, 0.0], [0.3, 0.3]])
def test_losses_of_0_and_a_single_epoch_can_be_drawn(tmp_path, losses):
    history = [
        {"epoch": k, "train_loss": value, "validation_loss": value, "learning_rate": 1}
        for k, value in enumerate(losses)
    ]
    figure = plots.plot_loss(history, tmp_path / "loss.png", "made", "mae")
    assert figure.axes[0].get_yscale() == ("linear" if 0.0 in losses else "log")
    assert lines(figure.axes[0])["training"][:, 1].tolist() == losses
    check_file(tmp_path / "loss.png")


def test_the_forecast_beside_the_truth_and_both_errors(tmp_path):
    series = series_of(600)
    forecasts = forecasts_of(series, range(50, 590), Layout(2))
    path = tmp_path / "forecast.png"
    figure = plots.plot_forecast(series, forecasts, {"ratio": 0.5, "part": "test"}, path)
    above, below = figure.axes
    shown = slice(-400, None)
    time = np.arange(152, 692)[shown]
    np.testing.assert_array_equal(lines(above)["truth"][:, 0], time)
    np.testing.assert_array_equal(lines(above)["truth"][:, 1], series.targets[52:592, 0][shown])
    ours = forecasts.predicted[:, 0, 0]
    np.testing.assert_array_equal(lines(above)["forecast"][:, 1], ours[shown])
    error = ours - series.targets[52:592, 0]
    np.testing.assert_allclose(lines(below)["forecast"][:, 1], error[shown])
    naive = series.targets[50:590, 0] - series.targets[52:592, 0]
    np.testing.assert_allclose(lines(below)["naive last value"][:, 1], naive[shown])
    label = above.get_legend_handles_labels()[1][1]
    assert label == f"forecast, 2 steps ahead (RMSE {np.sqrt(np.mean(error**2)):.3g})"
    assert above.get_title(loc="left") == "made: held-out test part, 0.50 of the naive RMSE"
    check_file(path)


def test_of_a_direct_model_the_first_step_ahead_with_its_band(tmp_path):
    series = series_of(80)
    forecasts = forecasts_of(series, range(10, 70), Layout(5, True, 1, (0.1, 0.5, 0.9)))
    figure = plots.plot_forecast(series, forecasts, {}, tmp_path / "forecast.png")
    values = forecasts.ways["streamed"]
    drawn = lines(figure.axes[0])
    np.testing.assert_array_equal(drawn["forecast"][:, 1], values[:, 0, 0, 1])
    np.testing.assert_array_equal(drawn["truth"][:, 0], 100 + np.arange(11, 71))
    (band,) = figure.axes[0].collections
    corners = band.get_paths()[0].vertices[:, 1]
    assert corners.min() == values[:, 0, 0, 0].min()
    assert corners.max() == values[:, 0, 0, 2].max()


def test_of_many_sequences_a_few_one_after_the_other(tmp_path):
    series = series_of(60, (10,) * 6)
    rows = [begin + k for begin in range(0, 60, 10) for k in range(9)]
    forecasts = forecasts_of(series, rows, Layout(1))
    figure = plots.plot_forecast(series, forecasts, {}, tmp_path / "forecast.png")
    drawn = lines(figure.axes[0])["forecast"][:, 1]
    assert len(drawn) == 4 * 9 + 3
    assert np.flatnonzero(np.isnan(drawn)).tolist() == [9, 19, 29]
    np.testing.assert_array_equal(drawn[10:19], forecasts.predicted[9:18, 0, 0])


def test_of_last_values_of_sequences_dots(tmp_path):
    series = series_of(400, (4,) * 100)
    forecasts = forecasts_of(series, range(2, 400, 4), Layout(1))
    figure = plots.plot_forecast(series, forecasts, {}, tmp_path / "forecast.png")
    truth = figure.axes[0].lines[0]
    assert (truth.get_marker(), truth.get_linestyle()) == ("o", "None")
    np.testing.assert_array_equal(truth.get_ydata(), series.targets[3:240:4, 0])


def test_a_fan_goes_from_the_last_known_value(tmp_path):
    series = series_of(100)
    forecasts = forecasts_of(series, range(20, 90), Layout(8, True, 1, (0.2, 0.5, 0.8)))
    figure = plots.plot_fan(series, forecasts, tmp_path / "fan.png")
    assert len(figure.axes) == 3
    for ax, k in zip(figure.axes, (0, 34, 69), strict=True):
        row = 20 + k
        forecast, truth = lines(ax)["forecast"], lines(ax)["truth"]
        np.testing.assert_array_equal(forecast[:, 0], 100 + np.arange(row, row + 9))
        assert forecast[0, 1] == series.targets[row, 0]
        np.testing.assert_array_equal(forecast[1:, 1], forecasts.predicted[k, :, 0])
        np.testing.assert_array_equal(truth[:, 1], series.targets[row - 15 : row + 9, 0])
        (band,) = ax.collections
        assert band.get_paths()[0].vertices[:, 1].max() == forecasts.all_quantiles[k, :, 0, 2].max()
    check_file(tmp_path / "fan.png")


def test_the_error_by_horizon_beside_the_naive_ones(tmp_path):
    series = series_of(60, targets=2)
    forecasts = forecasts_of(series, range(10, 50), Layout(6, True, 2))
    figure = plots.plot_horizon(series, forecasts, tmp_path / "horizon.png", period=4)
    drawn = lines(figure.axes[0])
    for k in range(6):
        ours, naive, season = [], [], []
        for i, row in enumerate(range(10, 50)):
            for c in range(2):
                truth = series.targets[row + k + 1, c]
                ours.append(forecasts.predicted[i, k, c] - truth)
                naive.append(series.targets[row, c] - truth)
                place = row + k + 1 - (4 if k < 4 else 8)
                season.append(series.targets[place, c] - truth)
        for name, errors in (
            ("forecast", ours),
            ("last value", naive),
            ("value 4 steps ago", season),
        ):
            assert drawn[name][k] == pytest.approx([k + 1, np.sqrt(np.mean(np.square(errors)))])
    check_file(tmp_path / "horizon.png")


def test_closed_loops_of_a_few_sequences(tmp_path):
    truth, forecast = np.random.default_rng(0).standard_normal((2, 5, 30))
    path = tmp_path / "loop.png"
    figure = plots.plot_closed_loop(truth, forecast, path, "after epoch 3")
    assert len(figure.axes) == 3
    for k, ax in enumerate(figure.axes):
        np.testing.assert_array_equal(lines(ax)["truth"][:, 1], truth[k])
        np.testing.assert_array_equal(lines(ax)["forecast"][:, 0], np.arange(1, 31))
        np.testing.assert_array_equal(lines(ax)["forecast"][:, 1], forecast[k])
    check_file(path)


def test_variants_are_bars_and_published_figures_are_lines(tmp_path):
    values = {"day": 0.25, "week": 0.5, "failed": None}
    published = {"day": {"Paper": 0.4}, "week": {"Paper": 0.6, "Other": 0.7}}
    path = tmp_path / "variants.png"
    figure = plots.plot_variants("oil", "scaled_mse", values, published, path)
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == [0.25, 0.5, 0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "day  0.25",
        "week  0.5",
        "failed  -",
    ]
    found = {c.get_label(): [s[0].tolist() for s in c.get_segments()] for c in ax.collections}
    assert found == {"Paper": [[0.4, -0.4], [0.6, 0.6]], "Other": [[0.7, 0.6]]}
    assert ax.get_xlabel() == "scaled_mse"
    check_file(path)


def test_learning_rates_leave_out_what_diverges(tmp_path):
    rates, losses = [1e-4, 1e-3, 1e-2, 1e-1], [1.0, 0.9, 0.5, 1e6]
    path = tmp_path / "rates.png"
    figure = plots.plot_learning_rates(rates, losses, 3e-3, path, "made")
    (ax,) = figure.axes
    assert ax.lines[0].get_xydata().tolist() == [list(p) for p in zip(rates, losses, strict=True)]
    assert ax.lines[1].get_xdata() == [3e-3, 3e-3]
    assert ax.get_ylim() == (0, pytest.approx(1.5 * 0.95))
    check_file(path)


def test_dates_stand_side_by_side(tmp_path):
    """In full they ran into one another where the ticks lay close."""
    hours = np.datetime64("2018-01-05T00:00") + np.arange(300) * np.timedelta64(1, "h")
    values = np.random.default_rng(0).standard_normal((300, 1))
    series = Series("made", "", values, values, ("a",), ("a",), hours, "date")
    forecasts = forecasts_of(series, range(10, 290), Layout(1))
    figure = plots.plot_forecast(series, forecasts, {}, tmp_path / "forecast.png")
    labels = [tick.get_text() for tick in figure.axes[1].get_xticklabels()]
    assert 3 <= len(labels) <= 10
    assert sum(map(len, labels)) < 40
