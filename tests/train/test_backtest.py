"""The rolling backtest against the reference, fed one forecast at a time from every origin."""

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.errors import SeriesError
from fastlstm.model import Model
from fastlstm.train.backtest import backtest, roll
from fastlstm.train.series import Series
from fastlstm.train.split import Segment


def model_of(inputs, outputs, **metadata):
    return Model((cases.recurrent("LSTM", inputs, 4), cases.dense(4, outputs)), metadata)


def series_of(count, targets=1, known=0, lengths=()):
    r = np.random.default_rng(0)
    values = r.standard_normal((count, targets)).astype(np.float32).astype(float)
    names = tuple("ab"[:targets])
    return Series(
        "made",
        "",
        values,
        values,
        names,
        names,
        np.arange(count),
        lengths=lengths,
        known=r.standard_normal((count, known)).astype(np.float32).astype(float) if known else None,
        known_columns=tuple("xy"[:known]),
    )


def fed_back(model, series, first, row, steps, quantiles=1, median=0):
    """The forecast from `row` of a sequence (or window) that begins at `first`, step by step."""
    targets = series.targets.shape[1]
    x = list(series.inputs[first : row + 1])
    if series.known is not None:
        x = [np.append(v, series.known[first + k + 1]) for k, v in enumerate(x)]
    found = []
    for k in range(1, steps + 1):
        y = reference.run(model, np.array(x))[-1].reshape(targets, quantiles)
        found.append(y)
        if k < steps:
            ahead = [] if series.known is None else series.known[row + k + 1]
            x.append(np.append(y[:, median], ahead))
    return np.array(found)


def test_a_one_step_model_feeds_on_its_own_forecasts():
    model, series, steps = model_of(2, 2, period=3, naive_mae=[0.5, 2.0]), series_of(40, 2), 5
    figures = backtest(model, series, origins=4, steps=steps)
    # The first origin has a whole season before it.
    origins = range(2, 40 - steps, 4)
    errors, naive, season, scaled = [], [], [], []
    for row in origins:
        truth = series.targets[row + 1 : row + steps + 1]
        errors.append(fed_back(model, series, 0, row, steps)[..., 0] - truth)
        naive.append(series.targets[row] - truth)
        season.append(series.targets[[row - 2, row - 1, row, row - 2, row - 1]] - truth)
        scaled.append(np.abs(errors[-1]) / [0.5, 2.0])
    errors = np.array(errors)
    assert (figures["steps"], figures["ahead"], figures["origins_every"]) == (len(origins), 5, 4)
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-9)
    assert figures["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-9)
    assert figures["mase"] == pytest.approx(np.mean(scaled), rel=1e-9)
    baselines = figures["baselines"]
    assert baselines["last value"]["mae"] == pytest.approx(np.abs(naive).mean())
    assert baselines["seasonal naive"]["mae"] == pytest.approx(np.abs(season).mean())
    for k, row in enumerate(figures["by_horizon"]):
        assert row["rmse"] == pytest.approx(np.sqrt(np.mean(errors[:, k] ** 2)), rel=1e-9)
        assert row["naive_rmse"] == pytest.approx(np.sqrt(np.mean(np.array(naive)[:, k] ** 2)))


def test_the_median_is_fed_back_beside_what_is_known_ahead():
    quantiles = [0.1, 0.5, 0.9]
    model = model_of(3, 3, quantiles=quantiles, known_columns=["x", "y"])
    series, steps = series_of(20, 1, known=2), 4
    found = roll(model, series, 3, steps)
    assert found.rows.tolist() == [0, 3, 6, 9, 12, 15]
    for k, row in enumerate(found.rows):
        expected = fed_back(model, series, 0, row, steps, 3, 1)
        np.testing.assert_allclose(found.all_quantiles[k], expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.truth[2], series.targets[7:11, None].reshape(4, 1))


def test_a_model_of_windows_begins_with_a_fresh_one():
    model = model_of(1, 1, window=6, loss_at="last")
    series = series_of(30)
    found = roll(model, series, 5, 3)
    assert found.rows[0] == 5
    for k, row in enumerate(found.rows):
        expected = fed_back(model, series, row - 5, row, 3)
        np.testing.assert_allclose(found.all_quantiles[k], expected, rtol=0, atol=1e-6)
    assert found.protocol == "windowed"


@pytest.mark.parametrize("loss_at", ["every", "last"])
def test_a_direct_model_gives_its_own_outputs(loss_at):
    model = model_of(1, 6, horizon=6, direct=True, window=4, loss_at=loss_at)
    series = series_of(30)
    found = roll(model, series, 2, 4)
    for k, row in enumerate(found.rows):
        first = row - 3 if loss_at == "last" else 0
        y = reference.run(model, series.inputs[first : row + 1])[-1]
        np.testing.assert_allclose(found.predicted[k, :, 0], y[:4], rtol=0, atol=1e-9)
    assert found.rows[-1] == 25
    assert len(backtest(model, series)["by_horizon"]) == 6


def test_every_sequence_has_its_own_origins():
    model, series = model_of(1, 1), series_of(24, lengths=(10, 14))
    found = roll(model, series, 1, 3)
    assert found.rows.tolist() == [*range(7), *range(10, 21)]
    for k, row in ((6, 6), (7, 10), (17, 20)):
        expected = fed_back(model, series, 0 if row < 10 else 10, row, 3)
        np.testing.assert_allclose(found.all_quantiles[k], expected, rtol=0, atol=1e-6)


def test_segments_say_where_the_forecasts_lie_and_origins_are_about_200():
    model, series = model_of(1, 1), series_of(1000)
    found = roll(model, series, 0, 2, segments=[Segment(0, 100, 900)])
    assert found.rows[0] == 99
    assert found.rows[-1] <= 897
    assert 150 <= len(found.rows) <= 200


@pytest.mark.parametrize(
    ("metadata", "outputs", "steps", "words"),
    [
        ({"horizon": 4, "direct": True}, 4, 5, "at most 4 steps.* found 5.* windows.horizon"),
        ({"horizon": 3}, 1, 2, "predicts the next step, found one that predicts 3 ahead"),
        ({}, 1, 20, "made: backtest: expected at least 20 samples after the first"),
        ({}, 1, -1, "expected at least 1 step .* found -1"),
    ],
)
def test_what_cannot_be_forecast_is_refused(metadata, outputs, steps, words):
    with pytest.raises(SeriesError, match=words):
        backtest(model_of(1, outputs, **metadata), series_of(20), 1, steps)


def test_a_model_that_does_not_predict_what_it_reads_cannot_go_on():
    series = series_of(20, 2)
    half = Series("half", "", series.inputs, series.targets[:, :1], ("a", "b"), ("a",), series.time)
    with pytest.raises(SeriesError, match="reads b without predicting it"):
        backtest(model_of(2, 1), half, 1, 2)
    assert backtest(model_of(2, 1), half, 1, 1)["steps"] == 19
