"""`fastlstm train`, `evaluate` and `forecast` on a small series."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

import fastlstm
from fastlstm.train import load_recipe


def test_train_shows_the_metrics_that_it_writes_and_lists_the_files(trained):
    folder, out = trained
    metrics = json.loads((folder / "metrics.json").read_text())
    keys = ("rmse", "mae", "smape", "mase", "scaled_mse", "accuracy")
    shown = {line[:15].strip(): line[15:].split() for line in out.splitlines()}
    naive = metrics["naive_rmse"]
    for name, figures in (
        ("model, streamed", metrics["streamed"]),
        ("model, windowed", metrics["windowed"]),
        ("untrained", metrics["before"]),
        ("last value", metrics["baselines"]["last value"]),
    ):
        *words, ratio = shown[name]
        assert [word != "-" for word in words] == [key in figures for key in keys]
        known = [
            (float(word), figures[key])
            for word, key in zip(words, keys, strict=True)
            if word != "-"
        ]
        # At least three digits are shown, of the accuracy four after the point.
        np.testing.assert_allclose(*zip(*known, strict=True), rtol=5e-3, atol=1e-4)
        np.testing.assert_allclose(float(ratio), figures["rmse"] / naive, rtol=5e-3)
    listed = [line.strip() for line in out.split("Files to look at:\n")[1].splitlines()]
    assert str(folder / "model.safetensors") in listed
    assert all(Path(name).is_file() for name in listed)
    assert fastlstm.load(folder / "model.safetensors").metadata["recipe"] == "sunspots"


def test_evaluate_measures_what_the_reference_predicts(run, trained, series, tmp_path):
    model_path, target = trained[0] / "model.safetensors", tmp_path / "figures.json"
    result = run("evaluate", model_path, "--data", series, "--column", "square", "--json", target)
    assert result.code == 0, result.err
    values = np.loadtxt(series, delimiter=",", skiprows=1)[:, 2:]
    predicted = fastlstm.reference.run(fastlstm.load(model_path), values.astype(np.float32))
    rmse = np.sqrt(np.mean((predicted[:-1] - values[1:]) ** 2))
    naive = np.sqrt(np.mean(np.diff(values, axis=0) ** 2))
    figures = json.loads(target.read_text())
    np.testing.assert_allclose([figures["rmse"], figures["naive_rmse"]], [rmse, naive], rtol=1e-9)
    assert f"{rmse:#.4g}" in result.out


def test_forecast_feeds_each_prediction_back(run, trained, series, tmp_path):
    model_path = trained[0] / "model.safetensors"
    plot, target = tmp_path / "new" / "plot.png", tmp_path / "new" / "forecast.csv"
    arguments = ("forecast", model_path, "--data", series, "--time", "year", "-n", 6)
    printed = run(*arguments)
    assert printed.code == 0, printed.err
    written = run(*arguments, "-o", target, "--plot", plot)
    assert written.out.splitlines() == [f"wrote {target}", f"wrote {plot}"]
    assert target.read_text() == printed.out
    assert plot.read_bytes().startswith(b"\x89PNG")

    known = list(np.loadtxt(series, delimiter=",", skiprows=1)[:, 1:2].astype(np.float32))
    model = fastlstm.load(model_path)
    for _ in range(6):
        known.append(fastlstm.reference.run(model, np.array(known))[-1])
    header, *lines = printed.out.splitlines()
    assert header == "year,sunspots"
    years, values = zip(*(line.split(",") for line in lines), strict=True)
    assert years == tuple(str(2000 + k) for k in range(6))
    np.testing.assert_allclose(np.float64(values), np.concatenate(known[-6:]), atol=1e-4)


def test_forecast_counts_steps_where_the_clock_is_not_even(run, trained, tmp_path):
    uneven = tmp_path / "uneven.csv"
    uneven.write_text("year,sunspots\n1,0.5\n2,0.4\n4,0.3\n")
    model_path = trained[0] / "model.safetensors"
    result = run("forecast", model_path, "--data", uneven, "--time", "year", "-n", 2)
    assert [line.split(",")[0] for line in result.out.splitlines()] == ["steps ahead", "1", "2"]


def test_forecast_refuses_two_columns_for_a_model_of_one(run, trained, series):
    arguments = ("--data", series, "--column", "sunspots", "--column", "square", "-n", 3)
    line = run("forecast", trained[0] / "model.safetensors", *arguments).error
    assert "reads 1 column, found 2 (sunspots, square)" in line
    assert "--column" in line


def recipe_file(path, variants=""):
    """A tiny recipe of a sine as a TOML file."""
    path.write_text(
        '[series]\ngenerator = { kind = "sine", samples = 200 }\n'
        "[windows]\nlength = 20\nstride = 4\n"
        "[network]\n"
        'layers = [{ kind = "RNN", hidden_size = 2 }, { kind = "Dense", output_size = 1 }]\n'
        f"[training]\nmax_epochs = 2\n{variants}"
    )
    return path


VARIANTS = (
    '[evaluation]\nbest_by = "rmse"\n'
    "[variants.slow]\noptimiser = { learning_rate = 1e-4 }\n"
    "[variants.quick]\noptimiser = { learning_rate = 0.05 }\n"
)


def test_variants_are_trained_compared_and_chosen_among(run, tmp_path):
    recipe = recipe_file(tmp_path / "two.toml", VARIANTS)
    done = run("train", recipe, "--out", tmp_path / "all", "--device", "cpu")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "all" / "metrics.json").read_text())
    rmse = {name: figures["rmse"] for name, figures in metrics["variants"].items()}
    assert list(rmse) == ["slow", "quick"]
    assert metrics["best"] == min(rmse, key=rmse.get)
    for value in rmse.values():
        assert f"{value:#.4g}"[:4] in done.out
    assert load_recipe(tmp_path / "all" / "slow").training.accelerator == "cpu"
    one = run("train", recipe, "--out", tmp_path / "one", "--variant", "quick", "--device", "cpu")
    assert one.code == 0, one.err
    assert {p.name for p in (tmp_path / "one").iterdir() if p.is_dir()} == {"quick"}
    models = [tmp_path / name / "quick" / "model.safetensors" for name in ("all", "one")]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_finding_a_learning_rate_only_tries(run, tmp_path):
    recipe, folder = recipe_file(tmp_path / "one.toml"), tmp_path / "out"
    done = run("train", recipe, "--out", folder, "--find-learning-rate")
    assert done.code == 0, done.err
    assert {path.name for path in folder.iterdir()} == {"learning_rate.png"}
    found = re.search(r"suggested: --set optimiser\.learning_rate=(\S+)", done.out)
    assert 1e-6 < float(found[1]) <= 1
    assert str(folder / "learning_rate.png") in done.out


def test_the_ready_recipes_are_listed_with_what_they_are_for(run):
    from fastlstm.train.recipe import about, ready_recipes

    out = " ".join(run("train", "list").out.split())
    for name in ready_recipes():
        assert name in out
        assert about(name).split()[0] in out
