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
