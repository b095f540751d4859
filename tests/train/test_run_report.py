"""What a run tells of its model: each figure from the reference at the origins of the test part."""

import json
from unittest import mock

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.model import Model
from fastlstm.train import load_recipe
from fastlstm.train.baselines import LinearMap
from fastlstm.train.layout import Layout
from fastlstm.train.report import report
from fastlstm.train.series import load_series
from fastlstm.train.split import Segment, fit_scaling, split

HISTORY = [{"epoch": 0, "train_loss": 1.0, "validation_loss": 2.0, "learning_rate": 0.1}]
BASE = {
    "series.generator": {"kind": "two_sines", "samples": 300, "noise": 0.1},
    "series.split": {"train": 200, "validation": 50, "test": 50},
    "windows.length": 12,
    "windows.warm_up": 0,
}


def told(tmp_path, outputs, **overrides):
    """The report of a random model, that model, the untrained one, and the series."""
    recipe = load_recipe("sine", overrides={**BASE, **overrides})
    series = load_series(recipe.series)
    parts = split(series, recipe)
    layout = Layout.of_recipe(recipe, series)
    metadata = {
        "horizon": layout.horizon,
        "direct": layout.direct,
        "quantiles": list(layout.quantiles),
        "window": recipe.windows.length,
        "loss_at": recipe.windows.loss_at,
    }
    ours, before = (
        Model((cases.recurrent("GRU", 1, 4, seed=seed), cases.dense(4, outputs)), metadata)
        for seed in (0, 1)
    )
    scaling = fit_scaling(series, parts, recipe.series)
    figures = report(recipe, ours, before, series, parts, scaling, HISTORY, tmp_path)
    json.dumps(figures, allow_nan=False)
    return figures, ours, before, series


def rmse(error):
    return np.sqrt(np.mean(np.square(error)))


def test_a_one_step_model_and_its_closed_loop(tmp_path):
    figures, ours, before, series = told(
        tmp_path,
        1,
        **{
            "evaluation.period": 40,
            "evaluation.steps": 10,
            "evaluation.origins": 7,
            "evaluation.linear_window": 24,
            "evaluation.published": {"Paper": 0.5},
        },
    )
    y = series.targets[:, 0]
    x = series.inputs.astype(np.float32)
    streamed = reference.run(ours, x)[249:299, 0] - y[250:]
    windowed = [reference.run(ours, x[t - 11 : t + 1])[-1, 0] - y[t + 1] for t in range(249, 299)]
    untrained = reference.run(before, x)[249:299, 0] - y[250:]
    deviation = y[:200].std()
    assert (figures["part"], figures["steps"], figures["protocol"]) == ("test", 50, "streamed")
    assert figures["rmse"] == figures["streamed"]["rmse"] == pytest.approx(rmse(streamed))
    assert figures["windowed"]["rmse"] == pytest.approx(rmse(windowed))
    assert figures["before"] == pytest.approx(
        {"rmse": rmse(untrained), "mae": np.abs(untrained).mean()}
    )
    assert figures["scaled_mse"] == pytest.approx(np.mean((streamed / deviation) ** 2))
    scale, floor = (y - y[:200].mean()) / deviation, 1e-4
    accuracy = 1 - np.mean(np.abs(streamed / deviation) / (np.abs(scale[250:]) + floor))
    assert figures["accuracy"] == pytest.approx(accuracy)
    assert figures["mase"] == pytest.approx(
        np.abs(streamed).mean() / np.abs(y[40:200] - y[:160]).mean()
    )
    baselines = figures["baselines"]
    assert baselines["last value"]["rmse"] == pytest.approx(rmse(y[249:299] - y[250:]))
    assert baselines["seasonal naive"]["rmse"] == pytest.approx(rmse(y[210:260] - y[250:]))
    # The series is two sines and noise of 0.1, which a linear map knows all of but the noise.
    assert 0.08 < baselines["linear map"]["rmse"] < 0.16
    assert figures["backtest"]["steps"] == len(range(249, 290, 7))
    assert figures["by_horizon"] == figures["backtest"]["by_horizon"]
    assert [row["ahead"] for row in figures["by_horizon"]] == list(range(1, 11))
    first = figures["by_horizon"][0]
    assert first["rmse"] == pytest.approx(rmse(streamed[:41:7]))
    assert figures["published"] == {"Paper": 0.5}
    assert (figures["metric"], figures["selected_on"]) == ("rmse", "validation")
    assert {path.name for path in tmp_path.iterdir()} == {
        "loss.png",
        "forecast.png",
        "fan.png",
        "horizon.png",
    }


def test_the_linear_map_never_sees_the_test_part(tmp_path):
    with mock.patch.object(LinearMap, "fit", wraps=LinearMap.fit) as fit:
        told(tmp_path, 1, **{"evaluation.linear_window": 24})
    _, train, choosing, ahead, window = fit.call_args.args
    assert train == (Segment(0, 0, 200),)
    assert choosing == (Segment(0, 200, 250),)
    assert (ahead, window) == ((1,), 24)


def test_a_direct_model_of_the_last_step_of_windows(tmp_path):
    figures, ours, before, series = told(
        tmp_path,
        9,
        **{
            "windows.horizon": 3,
            "windows.direct": True,
            "windows.loss_at": "last",
            "network.quantiles": [0.1, 0.5, 0.9],
            "series.split": {"train": 220, "validation": 0, "test": 80},
        },
    )
    x, y = series.inputs.astype(np.float32), series.targets[:, 0]
    rows = range(219, 297)
    truth = np.array([y[t + 1 : t + 4] for t in rows])

    def fresh(model):
        return np.array([reference.run(model, x[t - 11 : t + 1])[-1].reshape(3, 3) for t in rows])

    error = fresh(ours)[..., 1] - truth
    assert (figures["protocol"], figures["steps"]) == ("windowed", len(rows))
    assert figures["rmse"] == figures["windowed"]["rmse"] == pytest.approx(rmse(error))
    streamed = reference.run(ours, x)[219:297].reshape(-1, 3, 3)[..., 1] - truth
    assert figures["streamed"]["rmse"] == pytest.approx(rmse(streamed))
    assert figures["before"]["rmse"] == pytest.approx(rmse(fresh(before)[..., 1] - truth))
    assert [row["rmse"] for row in figures["by_horizon"]] == pytest.approx(
        [rmse(error[:, k]) for k in range(3)]
    )
    assert figures["selected_on"] == "test"
    assert set(figures["baselines"]) == {"last value"}
    assert 0 <= figures["coverage"] <= 1
    low, high = fresh(ours)[..., 0], fresh(ours)[..., 2]
    assert figures["coverage"] == pytest.approx(np.mean((low <= truth) & (truth <= high)))


def test_whole_sequences_by_their_last_value(tmp_path):
    figures, ours, _, series = told(
        tmp_path,
        1,
        **{
            "series.generator": {"kind": "ball", "sequences": 30},
            "series.split": {"train": 20, "validation": 4, "test": 6, "by": "sequence"},
            "series.scaling": "none",
            "windows.length": 0,
            "windows.loss_at": "last",
        },
    )
    ends = np.cumsum(series.lengths)[-6:]
    begins = ends - series.lengths[-6:]
    errors = []
    for begin, end in zip(begins, ends, strict=True):
        sequence = series.inputs[begin:end]
        errors.append(reference.run(ours, sequence[:-1].astype(np.float32))[-1] - sequence[-1])
    assert (figures["protocol"], figures["steps"]) == ("sequences", 6)
    assert figures["rmse"] == pytest.approx(rmse(errors))
    assert {path.name for path in tmp_path.iterdir()} == {"loss.png", "forecast.png"}
