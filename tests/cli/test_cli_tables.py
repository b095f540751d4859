"""The tables show what the newer cells are, and why a road cannot take them."""

import io

import numpy as np
import pytest

import cases
from fastlstm.model import Difference, LayerNorm, Model, Residual
from fastlstm.verify import Report, Row

pytest.importorskip("rich", reason="rich is not installed")

from rich.console import Console

from fastlstm import cli_tables


def shown(table):
    text = io.StringIO()
    Console(file=text, width=120).print(table)
    return [" ".join(line.split()) for line in text.getvalue().splitlines()]


def test_a_layer_is_shown_with_its_states_and_what_else_it_has():
    model = Model(
        (
            cases.recurrent("LSTM", 3, 5, projection=2, peephole=True),
            cases.recurrent("GRU", 2, 4, reset="before"),
            cases.bidirectional("LSTM", 4, 2, projection=1),
        )
    )
    lines = shown(cli_tables.layers(model))
    assert "0 LSTM 3 2 165 h (2), c (5), projection, peepholes" in lines
    assert "1 GRU 2 4 96 h (4), reset before" in lines
    assert (
        "2 Bidirectional 4 2 116 h (1), c (2), h_reverse (1), c_reverse (2), projection, cell LSTM"
        in lines
    )


def test_norms_differences_and_residuals_are_shown_in_a_line_each():
    weight = np.ones(720, np.float32)
    model = Model(
        (
            Difference(720),
            LayerNorm(weight, weight, 1e-3),
            Residual(2, tuple(range(720))),
            Residual(1, (3,) * 720),
            Residual(1, tuple(range(719, -1, -1))),
            cases.dense(720, 2),
            Residual(1, (4, 2)),
            cases.dense(2, 1),
            Residual(1, (1,)),
        )
    )
    lines = shown(cli_tables.layers(model))
    assert [line for line in lines if "Residual" in line or "Diff" in line or "Norm" in line] == [
        "0 Difference 720 720 0 x (720)",
        "1 LayerNorm 720 720 1,440 eps 0.001",
        "2 Residual 720 720 0 back 2, columns 0 to 719",
        "3 Residual 720 720 0 back 1, column 3 for all 720",
        "4 Residual 720 720 0 back 1, columns 719, 718, 717, 716, 715, 714 and 714 more",
        "6 Residual 2 2 0 back 1, columns 4, 2",
        "8 Residual 1 1 0 back 1, column 1",
    ]


def test_a_bidirectional_model_has_no_state_of_a_stream(tmp_path):
    for layer, words in (
        (cases.bidirectional("GRU", 3, 4), "none: a bidirectional layer needs the whole sequence"),
        (cases.recurrent("GRU", 3, 4), "4 numbers, 16 bytes as float32"),
    ):
        lines = shown(cli_tables.facts(tmp_path, Model((layer,)), "1 kB", "sha256:0"))
        assert f"state of one stream {words}" in lines


def test_a_road_that_cannot_express_the_model_is_listed_with_the_reason():
    rows = (
        Row("ours", "ok", 9, 1e-7, 1e-8, 1e-6, 1e-7, 1e-6),
        Row("other", "unsupported", note="x"),
    )
    lines = shown(cli_tables.verdicts(Report(rows)))
    assert "other - - - - - unsupported" in lines
    assert lines[-1] == "other: x"


def figures_of(scale=1.0, **more):
    values = {
        "rmse": 1.2345e-13,
        "mae": 1.2345e-13,
        "smape": 123.456,
        "mase": 0.12345,
        "scaled_mse": 1.2345e-5,
        "accuracy": 0.99991,
        **more,
    }
    return {name: scale * value for name, value in values.items()}


def test_scores_fit_on_a_terminal_of_80_columns_and_say_what_collapses_when_streamed():
    figures = {
        **figures_of(),
        "series": "a series [1]",
        "unit": "ppm",
        "steps": 123,
        "protocol": "windowed",
        "naive_rmse": 2.469e-13,
        "streamed": figures_of(1.6, accuracy=-1e9),
        "windowed": figures_of(),
        "before": {"rmse": 5.0e-13, "mae": None},
        "baselines": {"last value": figures_of(2), "linear map": figures_of(0.5)},
        "by_horizon": [
            {"ahead": k, "rmse": k / 8, "mae": k / 16, "naive_rmse": k / 4} for k in range(1, 101)
        ],
        "coverage": 0.75,
        "coverage_nominal": 0.8,
        "pinball": 0.0625,
        "published": {"Paper": 0.25},
        "metric": "mase",
        "selected_on": "test",
    }
    text = io.StringIO()
    Console(file=text, width=80).print(cli_tables.scores("Trained", figures))
    assert "…" not in text.getvalue()
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert lines[0] == "Trained: a series [1], 123 forecasts of 100 steps (ppm)"
    assert "model, streamed 1.975e-13 1.975e-13 197.5 0.198 1.98e-05 < -9.9 0.800" in lines
    assert "model, windowed 1.234e-13 1.234e-13 123.5 0.123 1.23e-05 0.9999 0.500" in lines
    assert "untrained 5.000e-13 - - - - - 2.03" in lines
    assert "linear map 6.172e-14 6.172e-14 61.7 0.0617 6.17e-06 0.5000 0.250" in lines
    steps = [line.split()[0] for line in lines if line.endswith(" 0.500") and "model" not in line]
    assert steps == ["1", "15", "29", "43", "58", "72", "86", "100"]
    told = " ".join(lines)
    assert "Streamed, the RMSE is 1.60 times that of fresh windows" in told
    assert "lies 75.0% of the truth, nominally 80.0%; pinball loss 0.06250." in told
    assert "mase here: 0.1235; published: Paper 0.25." in told
    assert "chosen on the test part" in told
    figures["streamed"] = figures_of(1.4)
    assert not any("Streamed" in line for line in shown(cli_tables.scores("", figures)))


def test_scores_of_several_columns_and_of_a_series_that_never_moves():
    figures = {
        "series": "flat",
        "steps": 3,
        "rmse": 1.0,
        "mae": 1.0,
        "naive_rmse": 0.0,
        "naive_mae": 0.0,
        "columns": {
            "x": {"rmse": 0.5, "mae": 0.25, "ratio": None},
            "y": {"rmse": 2.0, "mae": 1.5, "ratio": 0.125},
        },
    }
    lines = shown(cli_tables.scores("Evaluated", figures))
    assert lines[0] == "Evaluated: flat, 3 forecasts"
    assert "model, streamed 1.000 1.000" in lines
    assert "last value 0.000 0.000" in lines
    assert "x 0.5000 0.2500 -" in lines
    assert "y 2.000 1.500 0.125" in lines


def test_variants_are_rows_and_the_best_is_named():
    one = {"rmse": 0.5, "mae": 0.25, "ratio": 0.75}
    figures = {
        "recipe": "oil",
        "best": "week",
        "variants": {
            "day": {**one, "metric": "rmse", "published": {"Paper": 0.7}},
            "week": {**one, "rmse": 0.25},
        },
    }
    lines = shown(cli_tables.variants(figures))
    assert lines[0] == "Variants of oil"
    assert "day 0.5000 0.2500 0.750" in lines
    assert "week (best) 0.2500 0.2500 0.750" in lines
    assert "day: rmse here: 0.5000; published: Paper 0.7." in lines
