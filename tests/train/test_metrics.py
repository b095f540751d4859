"""Every figure against hand numbers and plain loops."""

import math

import numpy as np
import pytest

from fastlstm.train import metrics
from fastlstm.train.metrics import Yardstick, errors
from fastlstm.train.series import Series
from fastlstm.train.split import Scaling, Segment


def column(*values):
    """Forecasts of one step ahead and one target."""
    return np.array(values, float)[:, None, None]


def series_of(values, lengths=()):
    targets = np.array(values, float).reshape(len(values), -1)
    names = tuple("abc"[: targets.shape[1]])
    return Series(
        "made", "m", targets, targets, names, names, np.arange(len(values)), "step", lengths
    )


def test_figures_by_hand():
    yardstick = Yardstick(
        deviation=np.array([2.0]),
        naive_mae=np.array([0.5]),
        mean=np.array([1.0]),
        scale=np.array([4.0]),
        floor=0.25,
    )
    figures = errors(column(1, 3, 5), column(2, 3, 1), yardstick)
    assert figures == pytest.approx(
        {
            "rmse": math.sqrt(17 / 3),
            "mae": 5 / 3,
            "smape": 200 * (1 / 3 + 0 + 4 / 6) / 3,
            "mase": (5 / 3) / 0.5,
            # Scaled: truth 0, 0.5, 1 and forecasts 0.25, 0.5, 0.
            "accuracy": 1 - (0.25 / 0.25 + 0 + 1 / 1.25) / 3,
            "scaled_mse": 17 / 3 / 4,
            "scaled_mae": 5 / 3 / 2,
        }
    )


def test_figures_over_targets_and_steps_are_means_over_all():
    r = np.random.default_rng(0)
    truth, predicted = r.standard_normal((2, 5, 3, 2))
    deviation, naive = np.array([2.0, 0.5]), np.array([0.25, 4.0])
    figures = errors(truth, predicted, Yardstick(deviation, naive))
    squares, scaled, relative, ratios = [], [], [], []
    for origin in range(5):
        for ahead in range(3):
            for target in range(2):
                y, p = truth[origin, ahead, target], predicted[origin, ahead, target]
                squares.append((y - p) ** 2)
                scaled.append(abs(y - p) / deviation[target])
                relative.append(200 * abs(y - p) / (abs(y) + abs(p)))
                ratios.append(abs(y - p) / naive[target])
    assert figures["rmse"] == pytest.approx(math.sqrt(sum(squares) / 30))
    assert figures["scaled_mae"] == pytest.approx(sum(scaled) / 30)
    assert figures["scaled_mse"] == pytest.approx(sum(s * s for s in scaled) / 30)
    assert figures["smape"] == pytest.approx(sum(relative) / 30)
    assert figures["mase"] == pytest.approx(sum(ratios) / 30)
    assert figures["accuracy"] is None


def test_smape_is_0_where_both_are_0_and_200_where_signs_differ():
    assert metrics.smape(np.zeros(3), np.zeros(3)) == 0
    assert metrics.smape(np.array([0.0, 2]), np.array([0.0, -2])) == 100
    assert metrics.smape(np.array([0.0]), np.array([1e-300])) == 200


def test_what_is_not_finite_or_cannot_be_told_is_none():
    figures = errors(column(1, 2), column(np.inf, 2), Yardstick(np.zeros(1), np.zeros(1)))
    assert figures["rmse"] is None
    assert figures["mae"] is None
    assert figures["mase"] is figures["scaled_mse"] is figures["accuracy"] is None


def test_pinball_and_coverage_by_hand():
    truth = np.array([0.0, 10, 4])
    predicted = np.array([[-1, 0, 1], [1, 2, 3], [4, 5, 6]], float)
    assert metrics.coverage(truth, predicted) == pytest.approx(2 / 3)
    total = 0.0
    for y, row in zip(truth, predicted, strict=True):
        for q, p in zip((0.1, 0.5, 0.9), row, strict=True):
            total += q * (y - p) if y > p else (1 - q) * (p - y)
    assert metrics.pinball(truth, predicted, (0.1, 0.5, 0.9)) == pytest.approx(total / 9)


def test_the_median_s_pinball_loss_is_half_the_mae():
    truth, predicted = np.random.default_rng(1).standard_normal((2, 50))
    loss = metrics.pinball(truth, predicted[:, None], (0.5,))
    assert loss == pytest.approx(np.abs(truth - predicted).mean() / 2)


def test_the_naive_mae_of_training_never_leaves_its_segment():
    targets = np.array([0, 1, 3, 6, 100, 200, 205, 207, 0], float)[:, None]
    segments = [Segment(0, 0, 4), Segment(4, 5, 8), Segment(8, 8, 9)]
    one = metrics.in_sample_naive_mae(targets, segments, 1)
    assert one == pytest.approx([(1 + 2 + 3 + 5 + 2) / 5])
    two = metrics.in_sample_naive_mae(targets, segments, 2)
    assert two == pytest.approx([(3 + 5 + 7) / 3])
    assert np.isnan(metrics.in_sample_naive_mae(targets, segments, 9)).all()


def test_a_yardstick_is_measured_on_the_training_part_and_survives_a_model_file():
    series = series_of([[1, 0], [3, 0.5], [2, 1], [50, 70]])
    scaling = Scaling(np.zeros(2), np.ones(2), np.array([2.0, 1]), np.array([4.0, 5]))
    yardstick = Yardstick.of_training(series, [Segment(0, 0, 3)], scaling, floor=0.01)
    metadata = yardstick.metadata()
    assert metadata == {
        "target_deviation": pytest.approx([np.std([1, 3, 2]), np.std([0, 0.5, 1])]),
        "naive_mae": [1.5, 0.5],
        "accuracy_mean": [2, 1],
        "accuracy_scale": [4, 5],
        "accuracy_floor": 0.01,
    }
    truth, predicted = np.random.default_rng(2).standard_normal((2, 3, 1, 2))
    again = Yardstick.of_metadata(metadata)
    assert errors(truth, predicted, again) == errors(truth, predicted, yardstick)
    one = errors(truth[..., 1:], predicted[..., 1:], yardstick.column(1))
    assert one["mase"] == pytest.approx(np.abs(truth - predicted)[..., 1].mean() / 0.5)


def test_a_season_without_noise_is_nothing_to_divide_by():
    series = series_of(np.sin(2 * np.pi * np.arange(80) / 20))
    yardstick = Yardstick.of_training(series, [Segment(0, 0, 80)], None, period=20)
    assert errors(column(1), column(2), yardstick)["mase"] is None
