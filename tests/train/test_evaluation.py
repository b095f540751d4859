"""evaluate: the figures by hand, from NumPy and the reference, and its refusals."""

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.errors import SeriesError
from fastlstm.model import GRU, Affine, Dense, Model
from fastlstm.train import evaluate, load_recipe
from fastlstm.train.series import Series, load_series

# Doubling: its error on 1, 2, 4, 8, ... is nothing, that of the last value is half the truth.
DOUBLING = Model((Affine(np.array([2], np.float32), np.array([0], np.float32)),))


@pytest.fixture
def powers(tmp_path):
    path = tmp_path / "powers.csv"
    path.write_text("n,value\n" + "".join(f"{k},{2**k}\n" for k in range(6)))
    return path


def test_figures_by_hand(powers):
    figures = evaluate(DOUBLING, powers, ["value"])
    naive = np.array([1, 2, 4, 8, 16])
    assert figures["rmse"] == figures["mae"] == figures["ratio"] == 0
    assert figures["naive_rmse"] == pytest.approx(np.sqrt(np.mean(naive**2)))
    assert figures["naive_mae"] == pytest.approx(naive.mean())
    assert figures["steps"] == 5


def test_a_series_that_never_moves_has_no_ratio(tmp_path):
    path = tmp_path / "flat.npy"
    np.save(path, np.ones(4))
    figures = evaluate(DOUBLING, path)
    assert (figures["rmse"], figures["naive_rmse"], figures["ratio"]) == (1, 0, None)


def test_the_columns_and_horizon_of_the_model_are_the_default(powers):
    model = Model(DOUBLING.layers, {"input_columns": ["value"], "horizon": 2})
    figures = evaluate(model, powers)
    truth, predicted = 2.0 ** np.arange(2, 6), 2.0 ** np.arange(1, 5)
    assert figures["mae"] == pytest.approx(np.abs(predicted - truth).mean())


def test_a_model_of_two_inputs_knows_its_one_target(powers):
    into = Dense(np.array([[0, 2]], np.float32))
    model = Model((into,), {"input_columns": ["x", "y"], "target_columns": ["value"]})
    figures = evaluate(model, powers, ["n", "value"])
    assert (figures["rmse"], figures["naive_mae"]) == (0, pytest.approx(31 / 5))


def test_a_recipe_is_measured_on_its_test_part():
    recipe = load_recipe("sunspots")
    series = load_series(recipe.series)
    r = np.random.default_rng(0)
    model = Model(
        (
            GRU(
                r.standard_normal((3, 1)).astype(np.float32),
                r.standard_normal((3, 1)).astype(np.float32),
            ),
        )
    )
    predicted = reference.run(model, series.inputs.astype(np.float32))
    error = predicted[262:-1] - series.targets[263:]
    figures = evaluate(model, recipe)
    assert figures["steps"] == 46
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-12)
    whole = evaluate(model, series)
    assert whole["steps"] == 308


def test_columns_that_do_not_fit(powers):
    with pytest.raises(
        SeriesError, match=r"model reads 1 column, found 2 \(n, value\): name as many with --column"
    ):
        evaluate(DOUBLING, powers, ["n", "value"])
    with pytest.raises(SeriesError, match=r"powers\.csv: no column x; this file has n, value"):
        evaluate(DOUBLING, powers, ["x"])


def test_a_series_too_short_to_evaluate(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(1))
    with pytest.raises(SeriesError, match=r"one: 1 samples are too few .* predicts 1 ahead"):
        evaluate(DOUBLING, tmp_path / "one.npy")


def trained(layers, **known):
    """A model as a run leaves it."""
    metadata = {"horizon": 1, "direct": False, "quantiles": [], "window": 5, "loss_at": "every"}
    return Model(layers, {**metadata, **known})


def wave(count=60, lengths=()):
    values = np.sin(np.arange(count) / 3)[:, None] + 0.1
    return Series("wave", "", values, values, ("y",), ("y",), np.arange(count), lengths=lengths)


def fresh_windows(model, series, length):
    """At each row the reference's last output over the window that ends there."""
    x = series.inputs.astype(np.float32)
    return np.array(
        [reference.run(model, x[max(0, t - length + 1) : t + 1])[-1] for t in range(len(x))]
    )


@pytest.mark.parametrize("loss_at", ["every", "last"])
def test_a_model_of_windows_is_judged_streamed_and_windowed(loss_at):
    model = trained((cases.recurrent("LSTM", 1, 4), cases.dense(4, 1)), loss_at=loss_at)
    series = wave()
    figures = evaluate(model, series)
    truth = series.targets[1:]
    errors = {
        "streamed": reference.run(model, series.inputs.astype(np.float32))[:-1] - truth,
        "windowed": fresh_windows(model, series, 5)[:-1] - truth,
    }
    for way, error in errors.items():
        assert figures[way]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-10)
        assert figures[way]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-10)
    assert figures["streamed"]["rmse"] != pytest.approx(figures["windowed"]["rmse"], rel=1e-3)
    assert figures["protocol"] == {"every": "streamed", "last": "windowed"}[loss_at]
    assert figures["rmse"] == figures[figures["protocol"]]["rmse"]


@pytest.mark.parametrize("loss_at", ["every", "last"])
def test_whole_sequences_are_judged_at_all_steps_or_the_last(loss_at):
    model = trained((cases.recurrent("GRU", 1, 4), cases.dense(4, 1)), window=0, loss_at=loss_at)
    series = wave(30, (12, 11, 7))
    figures = evaluate(model, series)
    errors, begin = [], 0
    for length in series.lengths:
        x = series.inputs[begin : begin + length]
        error = reference.run(model, x.astype(np.float32))[:-1] - x[1:]
        errors += [error[-1:] if loss_at == "last" else error]
        begin += length
    error = np.concatenate(errors)
    assert (figures["protocol"], figures["steps"]) == ("sequences", len(error))
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-10)
    assert "streamed" not in figures


def test_a_direct_model_of_quantiles_over_two_targets():
    quantiles = (0.2, 0.5, 0.9)
    model = trained(
        (cases.recurrent("GRU", 2, 4), cases.dense(4, 18)),
        horizon=3,
        direct=True,
        quantiles=list(quantiles),
        target_deviation=[2.0, 0.5],
        naive_mae=[0.25, 4.0],
        period=4,
    )
    r = np.random.default_rng(0)
    values = r.standard_normal((25, 2))
    series = Series("two", "", values, values, ("a", "b"), ("a", "b"), np.arange(25))
    figures = evaluate(model, series)
    y = reference.run(model, values.astype(np.float32)).reshape(25, 3, 2, 3)
    errors, naive, season, pinballs, inside = [], [], [], [], []
    for t in range(22):
        for k in range(3):
            for c in range(2):
                truth, low, middle, high = values[t + k + 1, c], *y[t, k, c]
                errors.append((k, c, middle - truth))
                naive.append(values[t, c] - truth)
                place = t + k + 1 - 4
                season.append((values[place, c] if place >= 0 else values[t, c]) - truth)
                inside.append(low <= truth <= high)
                for q, p in zip(quantiles, (low, middle, high), strict=True):
                    pinballs.append(max(q * (truth - p), (q - 1) * (truth - p)))
    plain = np.array([e for *_, e in errors])
    scaled = np.array([e / (2.0, 0.5)[c] for _, c, e in errors])
    assert figures["steps"] == 22
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean(plain**2)))
    assert figures["naive_mae"] == pytest.approx(np.abs(naive).mean())
    assert figures["scaled_mse"] == pytest.approx(np.mean(scaled**2))
    assert figures["mase"] == pytest.approx(
        np.mean([abs(e) / (0.25, 4.0)[c] for _, c, e in errors])
    )
    assert figures["baselines"]["seasonal naive"]["mae"] == pytest.approx(np.abs(season).mean())
    assert figures["pinball"] == pytest.approx(np.mean(pinballs))
    assert figures["coverage"] == pytest.approx(np.mean(inside))
    assert figures["coverage_nominal"] == 0.7
    for k, row in enumerate(figures["by_horizon"]):
        here = np.array([e for step, _, e in errors if step == k])
        assert row["ahead"] == k + 1
        assert row["rmse"] == pytest.approx(np.sqrt(np.mean(here**2)))
        assert row["mae"] == pytest.approx(np.abs(here).mean())
    for c, name in enumerate("ab"):
        here = np.array([e for _, column, e in errors if column == c])
        assert figures["columns"][name]["rmse"] == pytest.approx(np.sqrt(np.mean(here**2)))


def test_what_is_known_ahead_goes_in_at_the_steps_that_are_predicted():
    """A model that only passes on what it knows: its error is nothing."""
    weight = np.array([[0, 1, 0], [0, 0, 1]], np.float32)
    model = Model(
        (Dense(weight),), {"horizon": 2, "direct": True, "known_columns": ["h"], "window": 3}
    )
    y = np.random.default_rng(1).standard_normal((12, 1)).astype(np.float32).astype(float)
    one = ("y",)
    series = Series("known", "", 0 * y, y, one, one, np.arange(12), known=y, known_columns=("h",))
    figures = evaluate(model, series)
    assert (figures["rmse"], figures["windowed"]["mae"], figures["steps"]) == (0, 0, 10)
    assert figures["naive_rmse"] > 0


def test_a_series_that_does_not_name_what_is_known_ahead():
    model = Model((Dense(np.ones((1, 2), np.float32)),), {"known_columns": ["hour"]})
    with pytest.raises(SeriesError, match="model reads hour ahead of time"):
        evaluate(model, wave())


def test_predicting_the_same_step_stands_beside_the_value_before():
    model = Model((Dense(np.array([[3]], np.float32)),), {"horizon": 0})
    t = np.arange(1.0, 7)[:, None]
    series = Series("same", "", t, 2 * t, ("t",), ("v",), np.arange(6))
    figures = evaluate(model, series)
    assert figures["steps"] == 5
    assert figures["mae"] == pytest.approx(np.mean([2, 3, 4, 5, 6]))
    assert figures["naive_mae"] == pytest.approx(2)
