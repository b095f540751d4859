"""`fastlstm evaluate` and `forecast` on models as runs leave them, and `stream` of sequences."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.model import Model

pytest.importorskip("torch", reason="needs torch: pip install 'fastlstm[train]'")

QUANTILES = [0.1, 0.5, 0.9]


@pytest.fixture
def saved(tmp_path):
    """Save a small model with this metadata, and return it and its file."""

    def make(inputs, outputs, **metadata):
        layers = (cases.recurrent("LSTM", inputs, 4), cases.dense(4, outputs))
        model = Model(layers, {"input_columns": ["y"], "target_columns": ["y"], **metadata})
        return model, model.save(tmp_path / "model.safetensors")

    return make


@pytest.fixture
def table(tmp_path):
    """Write columns as CSV; return the file and the values as a stream takes them."""

    def make(name, rows, *columns):
        r = np.random.default_rng(len(name))
        values = np.round(r.standard_normal((rows, len(columns))), 4)
        lines = [",".join(map(str, (k, *row))) for k, row in enumerate(values.tolist())]
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join([",".join(("t", *columns)), *lines]) + "\n")
        return path, values

    return make


def shown(out):
    """The rows of the first table, by their names."""
    lines = out.split("\n\n")[0].splitlines()
    return {line[:16].strip(): line[16:].split() for line in lines[4:]}


def test_evaluate_shows_streamed_and_windowed_beside_the_season(run, saved, table, tmp_path):
    model, path = saved(1, 1, window=5, loss_at="last", naive_mae=[0.5], target_deviation=[2.0])
    data, y = table("wave", 60, "y")
    target = tmp_path / "out" / "figures.json"
    result = run("evaluate", path, "--data", data, "--period", 7, "--json", target)
    assert result.code == 0, result.err
    x = y.astype(np.float32)
    windows = [reference.run(model, x[max(0, t - 4) : t + 1])[-1] for t in range(59)]
    error = np.array(windows) - y[1:]
    figures, rows = json.loads(target.read_text()), shown(result.out)
    assert figures["protocol"] == "windowed"
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert [float(word) for word in rows["model, windowed"][:2]] == pytest.approx(
        [np.sqrt(np.mean(error**2)), np.abs(error).mean()], rel=1e-3
    )
    streamed = reference.run(model, x)[:-1] - y[1:]
    assert float(rows["model, streamed"][0]) == pytest.approx(rmse(streamed), rel=1e-3)
    season = np.concatenate([np.zeros(6), y[:53, 0] - y[7:, 0]])
    season[:6] = y[:6, 0] - y[1:7, 0]  # before the first season its last value stands in
    assert float(rows["seasonal naive"][0]) == pytest.approx(rmse(season), rel=1e-3)
    assert float(rows["last value"][3]) == pytest.approx(
        np.abs(np.diff(y[:, 0])).mean() / 0.5, rel=1e-2
    )


def rmse(error):
    return np.sqrt(np.mean(np.square(error)))


def test_backtest_goes_on_from_every_origin(run, saved, table, tmp_path):
    model, path = saved(1, 1)
    data, y = table("wave", 40, "y")
    figures, pictures = tmp_path / "figures.json", tmp_path / "pictures"
    arguments = ("--backtest", 4, "--origins", 9, "--json", figures, "--plot", pictures)
    result = run("evaluate", path, "--data", data, *arguments)
    assert result.code == 0, result.err
    errors = []
    for row in range(0, 36, 9):
        known = list(y[: row + 1].astype(np.float32))
        for k in range(1, 5):
            known.append(reference.run(model, np.array(known))[-1])
            errors.append(known[-1] - y[row + k])
    found = json.loads(figures.read_text())
    assert (found["steps"], found["ahead"], found["origins_every"]) == (4, 4, 9)
    assert found["rmse"] == pytest.approx(rmse(errors), rel=1e-6)
    assert "Backtest: wave, 4 forecasts of 4 steps" in result.out
    assert f"{found['by_horizon'][3]['rmse']:#.4g}" in result.out
    assert {p.name for p in pictures.iterdir()} == {"forecast.png", "fan.png", "horizon.png"}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures.iterdir())


def test_lines_of_sequences_are_judged_by_their_last_value(run, saved, tmp_path):
    model, path = saved(1, 1, window=0, loss_at="last")
    data = tmp_path / "lines.csv"
    data.write_text("1,2,3\n4,6\n-1,-2,-3,-5\n")
    target = tmp_path / "figures.json"
    result = run("evaluate", path, "--data", data, "--lines", "--json", target)
    assert result.code == 0, result.err
    errors = [
        reference.run(model, np.float32(x)[:-1, None])[-1] - x[-1]
        for x in ([1, 2, 3], [4, 6], [-1, -2, -3, -5])
    ]
    figures = json.loads(target.read_text())
    assert (figures["steps"], figures["protocol"]) == (3, "sequences")
    assert figures["mae"] == pytest.approx(np.abs(errors).mean())
    assert shown(result.out)["model, sequences"]


@pytest.mark.parametrize(
    ("metadata", "outputs", "arguments", "words"),
    [
        ({}, 1, ["--origins", 3], "is for --backtest: add that"),
        ({}, 1, ["--backtest", 60], "expected at least 60 samples after the first origin"),
        ({"horizon": 3, "direct": True}, 3, ["--backtest", 4], "at most 3 steps"),
        ({"horizon": 80, "direct": True}, 80, [], "60 samples are too few .* predicts 80 ahead"),
        ({"known_columns": ["hour"]}, 1, [], "no column hour"),
    ],
)
def test_what_cannot_be_evaluated_is_one_clear_error(
    run, saved, table, metadata, outputs, arguments, words
):
    _, path = saved(1, outputs, **metadata)
    data, _ = table("wave", 60, "y")
    result = run("evaluate", path, "--data", data, "--column", "y", *arguments)
    assert result.code != 0
    assert "Traceback" not in result.err
    assert re.search(words, " ".join(result.err.replace("│", " ").split()))


def test_forecast_prints_what_a_direct_model_forecasts_at_once(run, saved, table, tmp_path):
    model, path = saved(
        1, 12, horizon=4, direct=True, quantiles=QUANTILES, window=6, loss_at="last"
    )
    data, y = table("wave", 30, "y")
    plot = tmp_path / "plot.png"
    result = run("forecast", path, "--data", data, "--time", "t", "-n", 3, "--plot", plot)
    assert result.code == 0, result.err
    header, *lines = result.out.splitlines()
    assert header == "t,y q0.1,y q0.5,y q0.9"
    expected = reference.run(model, y[-6:].astype(np.float32))[-1].reshape(4, 3)
    found = np.array([[float(word) for word in line.split(",")] for line in lines])
    assert found[:, 0].tolist() == [30, 31, 32]
    np.testing.assert_allclose(found[:, 1:], expected[:3], atol=1e-6)
    assert plot.read_bytes().startswith(b"\x89PNG")
    line = run("forecast", path, "--data", data, "-n", 5).error
    assert "at most 4 steps" in line
    assert "found 5" in line


@pytest.mark.parametrize("quantiles", [[], QUANTILES])
def test_forecast_with_columns_known_ahead(run, saved, table, quantiles):
    each = max(1, len(quantiles))
    model, path = saved(3, each, quantiles=quantiles, known_columns=["a", "b"])
    data, values = table("past", 20, "y", "a", "b")
    future, ahead = table("future", 5, "a", "b")
    result = run("forecast", path, "--data", data, "-n", 4, "--known", future)
    assert result.code == 0, result.err
    known = np.concatenate([values[:, 1:], ahead])
    x = [np.append(values[t, 0], known[t + 1]) for t in range(20)]
    for k in range(4):
        y = reference.run(model, np.float32(x))[-1]
        found = [float(word) for word in result.out.splitlines()[k + 1].split(",")[1:]]
        np.testing.assert_allclose(found, y, atol=1e-6)
        x.append(np.append(y[each // 2], known[min(21 + k, 24)]))


def test_forecast_says_what_it_needs_to_know_ahead(run, saved, table):
    _, path = saved(2, 1, known_columns=["a"])
    data, _ = table("past", 20, "y", "a")
    future, _ = table("future", 5, "a")
    line = run("forecast", path, "--data", data, "-n", 6).error
    assert "reads the next 6 rows of a ahead of time" in line
    assert "--known FILE" in line
    line = run("forecast", path, "--data", data, "-n", 6, "--known", future).error
    assert "expected the next 6 rows of a, found 5: add what is missing" in line
    _, plain = saved(1, 1)
    line = run("forecast", plain, "--data", data, "-n", 2, "--known", future).error
    assert "--known is for models with columns known ahead of time" in line


def test_forecast_refuses_what_cannot_go_on(run, saved, table):
    data, _ = table("past", 20, "y", "z")
    _, path = saved(1, 1, horizon=3)
    line = run("forecast", path, "--data", data, "-n", 2).error
    assert "predicts the next step, found one that predicts 3 ahead" in line
    _, path = saved(2, 1, input_columns=["y", "z"])
    assert "reads z without predicting it" in run("forecast", path, "--data", data, "-n", 2).error


@pytest.mark.parametrize("metadata", [{"window": 0, "loss_at": "last"}, {}])
def test_stream_answers_whole_sequences_after_their_last_number(run, saved, metadata):
    model, path = saved(1, 1, **metadata)
    told = [] if metadata else ["--sequences"]
    result = run("stream", path, *told, stdin="3,5,7\n# no\n2\n1 x\n3 5 7\n4,nan\n-1,0.5\n")
    assert result.code == 1
    assert [line.split(":")[1] for line in result.err.splitlines()] == [" line 4", " line 6"]
    found = [float(line) for line in result.out.splitlines()]
    expected = [
        reference.run(model, np.float32(x)[:, None])[-1, 0]
        for x in ([3, 5, 7], [2], [3, 5, 7], [-1, 0.5])
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0] == found[2]
    samples = run("stream", path, "--samples", stdin="3\n5\n7\n").out.splitlines()
    assert float(samples[2]) == found[0]


def test_stream_of_sequences_needs_a_model_of_one_column(run, saved):
    _, path = saved(2, 1, window=0, loss_at="last")
    assert run("stream", path, stdin="1,2\n").code == 0
    line = run("stream", path, "--sequences", stdin="1,2\n").error
    assert "this one reads 2: use --samples" in line
