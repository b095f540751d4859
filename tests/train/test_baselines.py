"""The naive forecasts against plain loops, the linear map against normal equations."""

import numpy as np
import pytest

from fastlstm.train.baselines import LinearMap, last_value, seasonal_naive
from fastlstm.train.series import Series
from fastlstm.train.split import Segment


def series_of(values, lengths=()):
    targets = np.array(values, float).reshape(len(values), -1)
    names = tuple("abc"[: targets.shape[1]])
    return Series(
        "made", "", targets, targets, names, names, np.arange(len(values)), "step", lengths
    )


@pytest.fixture
def two():
    """Sequences of 9 and 6 steps, of two targets."""
    return series_of(np.random.default_rng(0).standard_normal((15, 2)), (9, 6))


@pytest.mark.parametrize("ahead", [(1, 2, 3, 4), (3,)])
def test_the_last_value_at_each_step_ahead(two, ahead):
    rows = np.array([2, 4, 10])
    found = last_value(two, rows, ahead)
    for k, row in enumerate(rows):
        for step in range(len(ahead)):
            np.testing.assert_array_equal(found[k, step], two.targets[row])


def test_of_the_same_step_the_last_value_is_the_one_before(two):
    np.testing.assert_array_equal(
        last_value(two, np.array([3, 11]), (0,))[:, 0], two.targets[[2, 10]]
    )


def test_the_season_repeats_itself_at_each_step_ahead():
    series = series_of(np.arange(20))
    # Known up to row 9, which is 9: the last season of 4 is 6 7 8 9.
    found = seasonal_naive(series, np.array([9]), tuple(range(1, 10)), 4)
    assert found[0, :, 0].tolist() == [6, 7, 8, 9, 6, 7, 8, 9, 6]
    assert seasonal_naive(series, np.array([9]), (0,), 4).ravel().tolist() == [5]
    assert seasonal_naive(series, np.array([9]), (6,), 4).ravel().tolist() == [7]


def test_a_season_of_one_step_is_the_last_value(two):
    rows, ahead = np.array([1, 5, 12]), (1, 2, 3)
    np.testing.assert_array_equal(seasonal_naive(two, rows, ahead, 1), last_value(two, rows, ahead))


def test_no_season_reaches_into_the_sequence_before(two):
    found = seasonal_naive(two, np.array([10]), (1, 2, 3), 3)
    # Row 10 is the second of its sequence: a season ago there is nothing for the first step.
    expected = two.targets[[10, 9, 10]]
    np.testing.assert_array_equal(found[0], expected)


def autoregressive(count, seed=0):
    """y[t] = 0.6 y[t - 1] - 0.3 y[t - 3] + noise."""
    noise = 0.1 * np.random.default_rng(seed).standard_normal(count)
    y = np.zeros(count)
    for t in range(3, count):
        y[t] = 0.6 * y[t - 1] - 0.3 * y[t - 3] + noise[t]
    return y


@pytest.mark.parametrize("ahead", [(1, 2, 3), (2,), (0,)])
def test_the_linear_map_solves_its_normal_equations(ahead):
    y = 5 + 3 * autoregressive(300)
    series = series_of(y)
    train, choosing = [Segment(0, 0, 200)], [Segment(0, 200, 250)]
    fitted = LinearMap.fit(series, train, choosing, ahead, 6)
    late = 1 if ahead[0] == 0 else 0
    rows, deviation = [], None
    for row in range(5 + late, 200 - ahead[-1]):
        rows.append(row)
    deviation = y[rows].std()
    x, z = [], []
    for row in rows:
        last = y[row - late]
        x.append([(y[row - late - k] - last) / deviation for k in reversed(range(6))])
        z.append([(y[row + k] - last) / deviation for k in ahead])
    x, z = np.array(x), np.array(z)
    centred = x - x.mean(0)
    (penalty,) = fitted.penalty
    gram = centred.T @ centred / len(x) + penalty * np.mean(centred**2) * np.eye(6)
    weight = np.linalg.solve(gram, centred.T @ (z - z.mean(0)) / len(x))
    bias = z.mean(0) - x.mean(0) @ weight
    np.testing.assert_allclose(fitted.weight[0], weight, rtol=1e-8, atol=1e-10)
    origins = np.array([260, 270])
    found = fitted.predict(series, origins)
    for k, row in enumerate(origins):
        last = y[row - late]
        window = y[row - late - 5 : row - late + 1] - last
        expected = window @ weight + bias * deviation + last
        np.testing.assert_allclose(found[k, :, 0], expected, rtol=1e-9)


def test_the_linear_map_finds_the_law_of_a_series_whose_level_wanders():
    y = np.random.default_rng(3).standard_normal(4000)
    for t in range(3, 4000):
        y[t] = 0.7 * y[t - 1] + 0.3 * y[t - 3] + 0.1 * y[t]
    fitted = LinearMap.fit(series_of(y), [Segment(0, 0, 3000)], [Segment(0, 3000, 3900)], (1,), 4)
    # What the weights lack to 1 falls to the last value, which is taken away and added again.
    np.testing.assert_allclose(fitted.weight[0, :3, 0], [0, 0.3, 0], atol=0.03)
    far = y[:4] + 1000  # the level does not matter
    found = fitted.predict(series_of(far), np.array([3]))[0, 0, 0]
    assert found == pytest.approx(0.7 * far[3] + 0.3 * far[1], abs=0.2)


def test_the_penalty_is_the_one_that_the_choosing_rows_prefer():
    y = autoregressive(160, seed=5)
    series, ahead, window = series_of(y), (1, 2), 30
    fitted = LinearMap.fit(series, [Segment(0, 0, 90)], [Segment(0, 90, 160)], ahead, window)
    from fastlstm.train import baselines

    rows = np.arange(89, 158)
    losses = {}
    for penalty in baselines.PENALTIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(baselines, "PENALTIES", (penalty,))
            one = LinearMap.fit(series, [Segment(0, 0, 90)], [Segment(0, 90, 160)], ahead, window)
        error = one.predict(series, rows)[..., 0] - y[rows[:, None] + np.array(ahead)]
        losses[penalty] = np.mean(error**2)
    assert fitted.penalty == (min(losses, key=losses.get),)


def test_a_window_before_the_beginning_repeats_the_first_value(two):
    fitted = LinearMap(3, (1,), np.ones((2, 3, 1)), np.zeros((2, 1)), (0.0, 0.0))
    found = fitted.predict(two, np.array([9]))  # the first step of the second sequence
    np.testing.assert_array_equal(found[0, 0], two.targets[9])


def test_without_a_training_window_there_is_no_map(two):
    assert LinearMap.fit(two, [Segment(0, 0, 4)], [], (1,), 20) is None
