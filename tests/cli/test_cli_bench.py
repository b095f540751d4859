"""`fastlstm bench`: which plan a command makes, what it writes, and what it refuses."""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="needs typer and rich: pip install 'fastlstm[cli]'")
pytest.importorskip("pydantic", reason="needs pydantic: pip install 'fastlstm[bench]'")
pytest.importorskip("hdrh", reason="needs hdrhistogram: pip install 'fastlstm[bench]'")

from rich.console import Console

import sample_document
from fastlstm import cli_tables
from fastlstm.bench import benchmark as benchmarks
from fastlstm.bench.contenders import contender_list
from fastlstm.bench.floor.roofline import SIZES, Roofline
from fastlstm.bench.floor.roofline import Row as RooflineRow
from fastlstm.bench.presets import LADDER_SIZES
from fastlstm.bench.reports import document, readme


@pytest.fixture
def plans(monkeypatch):
    """The plans that a command would have measured; each gives the sample of a ladder."""
    seen = []

    def benchmark(plan, *, command, progress):
        progress("round 1 of 2")
        seen.append((plan, command))
        return sample_document.ladder()

    monkeypatch.setattr(benchmarks, "benchmark", benchmark)
    return seen


@pytest.mark.parametrize("preset", ["quick", "ladder", "stacks", "audio"])
def test_a_preset_is_measured_shown_and_written(run, plans, preset, tmp_path):
    files = {kind: tmp_path / "new" / f"result.{kind}" for kind in ("json", "markdown", "html")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    result = run("bench", preset, "--rounds", "3", *options)
    assert result.code == 0, result.err
    ((plan, _),) = plans
    assert (plan.preset, plan.rounds) == (preset, 3)
    names = [one.name for one in contender_list.CONTENDERS if preset != "quick" or not one.builds]
    assert [one.name for one in plan.contenders] == names
    # The sample's own figures, on the screen and in each file.
    sample = sample_document.ladder()
    assert document.read(files["json"]) == sample
    for text in (result.out, files["markdown"].read_text(), files["html"].read_text()):
        assert sample.advice[0].reasons[0] in text
    assert "result.json" in files["html"].read_text()
    assert all(f"wrote {path}" in result.out.replace("\n", "") for path in files.values())


def test_the_ladder_has_the_sizes_asked_for(run, plans):
    assert run("bench", "ladder", "--hidden", "1,17").code == 0
    assert run("bench", "ladder").code == 0
    (few, _), (all_sizes, _) = plans
    assert [model.states[0].size for model in few.models.values()] == [1, 17]
    assert tuple(all_sizes.hidden.values()) == LADDER_SIZES


def test_a_model_of_ones_own(run, plans, model, model_file):
    result = run("bench", "model", model_file, "--rate", 100, "--block", 10, "--streams", "4,8")
    assert result.code == 0, result.err
    ((plan, command),) = plans
    (name,) = plan.models
    assert name == model_file.stem
    assert [mode.name for mode in plan.modes] == [
        "step",
        "sequence",
        "10 samples every 100 ms",
        "4 streams",
        "8 streams",
    ]
    assert plan.models[name].num_parameters == model.num_parameters
    assert plan.warm_starts == 3
    # No folder of this machine in what is kept.
    assert str(model_file.parent) not in command
    assert run("bench", "model", model_file, "--no-starts", "--streams", "0").code == 0
    assert plans[1][0].warm_starts == 0
    assert "streams" not in {mode.kind for mode in plans[1][0].modes}


def test_contenders_are_chosen_by_name_and_ours_are_always_there(run, plans):
    assert run("bench", "quick", "--only", "ONNX Runtime, torch eager").code == 0
    ((plan, _),) = plans
    wanted = {"ONNX Runtime", "torch eager", *contender_list.OURS.values()}
    assert {one.name for one in plan.contenders} == wanted
    result = run("bench", "quick", "--only", "onnx")
    assert result.code == 1
    assert "ONNX Runtime" in result.error


FAKE = Path(__file__).parent.parent / "bench" / "contenders" / "fake_contender.py"


def test_a_contender_from_outside_joins(run, plans):
    command = shlex.join([sys.executable, "-I", "-S", str(FAKE), ""])
    assert run("bench", "quick", "--contender", command).code == 0
    ((plan, _),) = plans
    assert plan.contenders[-1].name == "double and one"
    twice = run("bench", "quick", "--contender", command, "--contender", command)
    assert twice.code == 1
    assert "'double and one' twice" in twice.error


def test_a_program_that_is_no_contender_is_refused(run, plans):
    result = run("bench", "quick", "--contender", f"{sys.executable} -c pass")
    assert result.code == 1
    assert "asked for `hello`: it ended with exit code 0" in result.error
    assert plans == []


def test_a_result_is_shown_again_and_put_into_a_readme(run, tmp_path):
    sample = sample_document.ladder()
    path = tmp_path / "ladder.json"
    document.write(sample, path)
    shown = run("bench", "report", path)
    assert shown.code == 0
    assert sample.advice[1].reasons[0] in shown.out
    page, text, plot = tmp_path / "page.html", tmp_path / "README.md", tmp_path / "bench.svg"
    text.write_text(f"# Title\n{readme.BEGIN}\nold\n{readme.END}\nend\n")
    result = run("bench", "report", path, "--html", page, "--readme", text, "--plot", plot)
    assert result.code == 0, result.err
    assert text.read_text().startswith("# Title\n")
    assert readme.section(sample).strip() in text.read_text()
    assert "\nold\n" not in text.read_text()
    assert plot.read_text().startswith("<svg")
    assert "LSTM 1xH" in plot.read_text()
    assert "ladder.json" in page.read_text()
    assert sample.advice[1].reasons[0] not in result.out


def test_two_results_are_compared(run, tmp_path):
    before, after, page = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "moved.md"
    document.write(sample_document.ladder(), before)
    document.write(sample_document.ladder(scale=1.5), after)
    result = run("bench", "compare", before, after, "--markdown", page)
    assert result.code == 0, result.err
    # Ours became half as slow again, so every other is two thirds as many times ours as before.
    assert "-33" in result.out
    assert "-33" in page.read_text()
    same = run("bench", "compare", before, before)
    assert "-33" not in same.out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "expected the JSON of `fastlstm bench`"),
        ('{"schema": "fastlstm-bench-1"}', "expected a result of schema fastlstm-bench-2"),
        ('{"schema": "fastlstm-bench-2"}', "Field required"),
        ("[]", "found 'list'"),
        (None, "No such file"),
    ],
)
def test_what_is_no_result_is_refused(run, tmp_path, content, words):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    for command in (("report", path), ("compare", path, path)):
        result = run("bench", *command)
        assert result.code == 1
        assert words in result.error
        assert "result.json" in result.error


def test_a_readme_without_markers_stays_as_it_is(run, tmp_path):
    path, text = tmp_path / "ladder.json", tmp_path / "README.md"
    document.write(sample_document.ladder(), path)
    text.write_text("no markers\n")
    result = run("bench", "report", path, "--readme", text)
    assert result.code == 1
    assert "bench:begin" in result.error
    assert text.read_text() == "no markers\n"


@pytest.mark.parametrize("missing", ["pydantic", "hdrh", "matplotlib", "jinja2"])
def test_without_a_library_the_extra_is_named(run, monkeypatch, missing):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    result = run("bench", "quick")
    assert result.code == 1
    assert "fastlstm[bench]" in result.error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model", "MODEL", "--block", "64"], ["--block", "--rate"]),
        (["model", "MODEL", "--streams", "a"], ["--streams", "8,32,64"]),
        (["model", "MODEL", "--rate", "0"], ["--rate"]),
        (["quick", "--rounds", "0"], ["--rounds"]),
        (["roofline", "--cell", "gru"], ["--cell", "LSTM", "GRU", "RNN"]),
        (["report"], ["RESULT.json"]),
    ],
)
def test_options_that_make_no_sense_are_refused(run, model_file, arguments, words):
    arguments = [model_file if word == "MODEL" else word for word in arguments]
    result = run("bench", *arguments)
    assert result.code == 2
    assert all(word in result.err for word in words)


@pytest.mark.parametrize("text", ["8,a", "0", "", "8,,9"])
@pytest.mark.parametrize("command", ["ladder", "roofline"])
def test_sizes_that_are_none_are_refused(run, command, text):
    result = run("bench", command, "--hidden", text)
    assert result.code == 2
    assert "--hidden" in result.err
    assert "8,32,64" in result.err


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

    monkeypatch.setattr("fastlstm.bench.floor.roofline.measure_roofline", measure)
    figures, picture = tmp_path / "new" / "roofline.json", tmp_path / "roofline.png"
    options = ["--hidden", "8,1024", "--cell", "GRU", "--json", figures, "--plot", picture]
    result = run("bench", "roofline", *options)
    assert result.code == 0, result.err
    (row,) = (line.split() for line in result.out.splitlines() if "279,463" in line)
    assert row[:5] == ["1024", "279,463.4", "16,809,984", "269,815.8", "1.05"]
    assert row[5:] == ["16", "vectors,", "prefetch"]
    assert f"wrote {picture}" in result.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(figures.read_text())["rows"][0]["ratio"] == 1.046
    assert run("bench", "roofline").code == 0
    assert seen == [([8, 1024], "GRU"), (list(SIZES), "LSTM")]
