"""`fastlstm bench`: the roads, the roofline, and which options go together."""

from __future__ import annotations

import io
import json

import pytest

pytest.importorskip("typer", reason="needs typer and rich: pip install 'fastlstm[cli]'")

from rich.console import Console

from fastlstm import bench, cli_tables
from fastlstm.bench.roofline import SIZES, Roofline
from fastlstm.bench.roofline import Row as RooflineRow


def test_bench_shows_and_writes_every_contender(run, model_file, monkeypatch, tmp_path):
    seen = []

    def compare(models, *, progress):
        seen.append({name: len(m.layers) for name, m in models.items()})
        progress("fastlstm")
        rows = (
            bench.Row("model", "push", "other", note="missing: not installed"),
            bench.Row("model", "push", "fastlstm", 512.25, 1024.0, 15, 1.0, 1e-7),
            bench.Row("model", "sequence", "fastlstm", 99.6, 120.0, 15, 1.0, 1e-7),
        )
        return bench.Result(rows, {}, 15, 1000)

    monkeypatch.setattr("fastlstm.bench.compare", compare)
    target = tmp_path / "bench.json"
    result = run("bench", model_file, "--json", target)
    assert result.code == 0
    assert seen == [{"model": 4}]
    lines = [line.split() for line in result.out.splitlines()]
    assert ["fastlstm", "512", "1,024", "1.0", "1.0e-07"] in lines
    assert ["other", "-", "-", "-", "-", "missing:", "not", "installed"] in lines
    assert result.out.count("model, push") == 1
    assert json.loads(target.read_text())["rows"][2]["median_ns"] == 99.6


def test_bench_without_a_model_makes_lstms_of_the_sizes_asked_for(run, monkeypatch):
    seen = {}

    def compare(models, *, progress):
        seen.update({m.states[0].size: name for name, m in models.items()})
        return bench.Result((), {}, 15, 1000)

    monkeypatch.setattr("fastlstm.bench.compare", compare)
    assert run("bench", "--hidden", "1,17").code == 0
    assert sorted(seen) == [1, 17]


ROOFLINE = Roofline(
    "GRU",
    (
        RooflineRow(
            1024,
            16_809_984,
            1000,
            279_463.4,
            269_815.8,
            "16 vectors, prefetch",
            1.046,
            {"8 vectors": 300_000.0, "16 vectors, prefetch": 269_815.8},
            1e-7,
        ),
    ),
    {},
    15,
)


def test_every_figure_of_a_roofline_fits_on_a_terminal_of_80_columns():
    text = io.StringIO()
    Console(file=text, width=80).print(cli_tables.roofline(ROOFLINE))
    assert "279,463.4  16,809,984  269,815.8" in text.getvalue()
    assert "16 vectors, prefetch" in text.getvalue()
    assert all(len(line) <= 80 for line in text.getvalue().splitlines())


def test_bench_roofline_shows_writes_and_draws(run, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'fastlstm[train]'")
    seen = []

    def measure(sizes, cell, *, progress):
        seen.append((list(sizes), cell))
        progress("1024")
        return ROOFLINE

    monkeypatch.setattr("fastlstm.bench.roofline.measure_roofline", measure)
    figures, picture = tmp_path / "new" / "roofline.json", tmp_path / "roofline.png"
    result = run(
        "bench",
        "--roofline",
        "--hidden",
        "8,1024",
        "--cell",
        "GRU",
        "--json",
        figures,
        "--plot",
        picture,
    )
    assert result.code == 0, result.err
    (row,) = (line.split() for line in result.out.splitlines() if "279,463" in line)
    assert row[:5] == ["1024", "279,463.4", "16,809,984", "269,815.8", "1.05"]
    assert row[5:] == ["16", "vectors,", "prefetch"]
    assert f"wrote {picture}" in result.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(figures.read_text())["rows"][0]["ratio"] == 1.046
    assert run("bench", "--roofline").code == 0
    assert seen == [([8, 1024], "GRU"), (list(SIZES), "LSTM")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL", "--roofline"], ["MODEL", "leave the model out"]),
        (["--plot", "x.png"], ["--plot", "--roofline"]),
        (["--cell", "GRU"], ["--cell", "--roofline"]),
        (["--roofline", "--cell", "gru"], ["--cell", "LSTM", "GRU", "RNN"]),
    ],
)
def test_bench_refuses_options_that_do_not_go_together(run, model_file, arguments, words):
    arguments = [model_file if word == "MODEL" else word for word in arguments]
    result = run("bench", *arguments)
    assert result.code == 2
    assert all(word in result.err for word in words)


@pytest.mark.parametrize("text", ["8,a", "0", "", "8,,9"])
def test_bench_refuses_sizes_that_are_none(run, text):
    result = run("bench", "--hidden", text)
    assert result.code == 2
    assert "--hidden" in result.err
    assert "8,32,64" in result.err
