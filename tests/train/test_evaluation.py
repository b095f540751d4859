"""evaluate: the figures by hand, from NumPy and the reference, and its refusals."""

import numpy as np
import pytest

from fastlstm import reference
from fastlstm.errors import SeriesError
from fastlstm.model import GRU, Affine, Dense, Model
from fastlstm.train import evaluate, evaluation, load_recipe
from fastlstm.train.series import load_series

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


def test_a_long_series_is_one_stream(monkeypatch):
    series = load_series(load_recipe("sine").series)
    r = np.random.default_rng(0)
    model = Model(
        (
            GRU(
                r.standard_normal((12, 1)).astype(np.float32),
                r.standard_normal((12, 4)).astype(np.float32),
            ),
        )
    )
    whole = evaluation.predict(model, series.inputs)
    monkeypatch.setattr(evaluation, "CHUNK", 7)
    np.testing.assert_allclose(evaluation.predict(model, series.inputs), whole, rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        whole, reference.run(model, series.inputs.astype(np.float32)), rtol=0, atol=1e-12
    )


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
