"""`fastlstm verify --all`: the table, its notes, the JSON, the page and the exit code."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest

pytest.importorskip("typer", reason="needs typer and rich: pip install 'fastlstm[cli]'")
pytest.importorskip("onnx", reason="needs onnx: pip install 'fastlstm[onnx]'")

from rich.console import Console

import runtime_fakes
from fastlstm import cli_matrix, cli_matrix_page
from fastlstm.bench.reports.markdown import cell
from fastlstm.export.cells import CELLS
from fastlstm.export.matrix import STEPS, Matrix, matrix
from fastlstm.export.runtime_list import RUNTIMES
from fastlstm.verify import Report, Row

LACKS = "otherlib not installed: pip install 'fastlstm[runtimes]'"


def fake(name, load, lacks=""):
    return replace(runtime_fakes.runtime(load, lacks), name=name)


RIGHT = fake("Right", runtime_fakes.Fake)
WRONG = fake("Wrong", runtime_fakes.IgnoresLengths)
PARTLY = fake("Partly [x]", runtime_fakes.RefusesBatches)
REFUSES = fake("Refuses", runtime_fakes.refuses)
ABSENT = fake("Absent", runtime_fakes.Breaks, LACKS)
FINE = (RIGHT, PARTLY, REFUSES, ABSENT)


@pytest.fixture
def runtimes(monkeypatch):
    """Put these runtimes, and one built-in cell, in the place of the real ones."""

    def put(*listed):
        monkeypatch.setattr("fastlstm.export.runtime_list.RUNTIMES", listed)
        monkeypatch.setattr("fastlstm.export.cells.CELLS", {"cell": lambda: runtime_fakes.MODEL})

    return put


def on_screen(table, width):
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue()


def test_without_a_model_every_cell_runs_on_every_runtime(run, runtimes, tmp_path):
    runtimes(*FINE)
    target = tmp_path / "new" / "matrix.json"
    result = run("verify", "--all", "--json", target)
    assert result.code == 0, result.err
    assert "Verifying: 1 of 1, cell on Right" in result.err
    (row,) = (line for line in result.out.splitlines() if line.startswith("cell "))
    _, bound, right, partly, *others = row.split()
    assert float(right) <= float(bound)
    assert partly == f"{right}*" or float(partly.rstrip("*")) <= float(bound)
    assert others == ["refused", "missing"]
    assert "Right 1.2; Partly [x] 1.2; Refuses 1.2." in result.out
    assert f"Absent, missing: {LACKS}" in result.out
    assert "Refuses, refused: cell (one step at a time, one sequence," in result.out
    assert "fake: no such op: LSTM" in result.out
    assert "Partly [x], refused: cell (batch of 7, variable lengths): " in result.out
    written = json.loads(target.read_text())
    assert written["ok"] is True
    verdicts = [(c["runtime"], c["verdict"]) for c in written["cells"]["cells"]]
    assert verdicts == [
        ("Right", "ok"), ("Partly [x]", "partly"), ("Refuses", "refused"), ("Absent", "missing"),
    ]  # fmt: skip


def test_what_is_wrong_is_shown_and_named_and_the_exit_code_is_1(run, runtimes, tmp_path):
    runtimes(RIGHT, WRONG)
    target = tmp_path / "matrix.json"
    result = run("verify", "--all", "--json", target)
    assert result.code == 1
    assert result.error == "error: not within bounds: cell on Wrong"
    (row,) = (line for line in result.out.splitlines() if line.startswith("cell "))
    assert 0 < float(re.fullmatch(r"(.+)†", row.split()[-1]).group(1)) < 1e-6
    assert "Wrong, wrong: cell (variable lengths): outputs off by up to" in result.out
    assert json.loads(target.read_text())["ok"] is False


def test_the_error_of_what_is_wrong_throughout_is_shown_as_such(run, runtimes):
    runtimes(fake("Swaps", runtime_fakes.SwapsStates))
    result = run("verify", "--all")
    assert result.code == 1
    (row,) = (line for line in result.out.splitlines() if line.startswith("cell "))
    assert float(re.fullmatch(r"(.+)!", row.split()[-1]).group(1)) > 0.01
    notes = [line for line in result.out.splitlines() if line.startswith("Swaps, wrong: ")]
    assert len(notes) == 2
    assert "cell (one step at a time, one sequence, in pieces, batch of 7)" in notes[0]


def test_where_no_runtime_can_run_nothing_is_proven(run, runtimes):
    runtimes(REFUSES, ABSENT)
    result = run("verify", "--all")
    assert result.code == 1
    assert result.error == "error: not within bounds: no runtime could run"


@pytest.fixture
def own_model_file(tmp_path):
    return runtime_fakes.MODEL.save(tmp_path / "own.safetensors")


def test_with_a_model_the_roads_come_first_and_then_a_row_for_each_runtime(
    run, runtimes, monkeypatch, own_model_file, tmp_path
):
    runtimes(RIGHT, PARTLY, ABSENT)
    road = Report((Row("some road", "ok", 50, 1e-8, 1e-8, 1e-6, 1e-8, 1e-6),))
    monkeypatch.setattr("fastlstm.verify", lambda model, **options: road)
    target, page = tmp_path / "report.json", tmp_path / "page.md"
    result = run("verify", own_model_file, "--all", "--json", target, "--markdown", page)
    assert result.code == 0, result.err
    assert result.out.index("some road") < result.out.index("Right")
    rows = {
        line.split()[0]: line.split() for line in result.out.splitlines()
        if line.startswith(("Right ", "Absent "))
    }  # fmt: skip
    *errors, bound = map(float, rows["Right"][1:])
    assert len(errors) == 5
    assert all(0 < error <= bound for error in errors)
    assert rows["Absent"][1:-1] == ["-"] * 5
    written = json.loads(target.read_text())
    assert written["rows"][0]["road"] == "some road"
    assert written["model"]["cells"][0]["verdict"] == "ok"
    assert f"`fastlstm verify {own_model_file} --all --markdown {page}`" in page.read_text()


def test_a_folders_models_are_a_second_table_by_their_folders(run, runtimes, tmp_path):
    runtimes(RIGHT, ABSENT)
    folder = tmp_path / "runs"
    for name in ("ball-0/gru", "sine-0", "."):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        runtime_fakes.MODEL.save(place / "model.safetensors")
    target, page = tmp_path / "matrix.json", tmp_path / "docs" / "runtimes.md"
    result = run("verify", "--all", "--models", folder, "--json", target, "--markdown", page)
    assert result.code == 0, result.err
    found = json.loads(target.read_text())["models"]["cells"]
    assert {cell["model"] for cell in found} == {"ball-0/gru", "sine-0", "runs"}
    text = page.read_text()
    assert f"--all --models {folder} --markdown {page}`" in text
    assert text.index("## Cell by cell") < text.index("## Every model in ")
    assert re.search(r"^\| ball-0/gru \| \S+ \| \S+ \| missing \|$", text, re.MULTILINE)


def test_a_wrong_model_of_the_folder_fails_too(run, runtimes, tmp_path):
    runtimes(WRONG)
    runtime_fakes.MODEL.save(tmp_path / "model.safetensors")
    result = run("verify", "--all", "--models", tmp_path)
    assert result.code == 1
    assert result.error.endswith(f"cell on Wrong, {tmp_path.name} on Wrong")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected a model file, or --all"),
        (["--models", "runs"], "add --all"),
        (["--markdown", "page.md"], "add --all"),
        (["--all", "--models", "EMPTY"], "expected a folder with a model.safetensors"),
    ],
)
def test_what_does_not_go_together_says_what_to_add(run, runtimes, tmp_path, arguments, words):
    runtimes(RIGHT)
    arguments = [str(tmp_path) if word == "EMPTY" else word for word in arguments]
    result = run("verify", *arguments)
    assert result.code == 2
    assert words in " ".join(result.err.replace("│", " ").split())
    assert "Traceback" not in result.err


@pytest.fixture(scope="module")
def whole():
    """A matrix as large as the real one: all names, every kind of verdict."""
    kinds = (RIGHT, WRONG, PARTLY, REFUSES, ABSENT, RIGHT)
    listed = [
        replace(kind, name=runtime.name) for kind, runtime in zip(kinds, RUNTIMES, strict=True)
    ]
    found = matrix({"cell": lambda: runtime_fakes.MODEL}, listed)
    names = list(CELLS)
    return Matrix(
        found.runtimes,
        dict.fromkeys(names, found.bounds["cell"]),
        tuple(replace(cell, model=name) for name in names for cell in found.cells),
    )


@pytest.mark.parametrize("width", [80, 120])
def test_the_whole_table_is_legible_on_a_terminal(whole, width):
    text = on_screen(cli_matrix.grid("Cell by cell", whole), width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    figure = r"\d\.\de[+-]\d\d"
    row = rf"{figure} +{figure} +{figure}† +{figure}\* +refused +missing +{figure}$"
    for name in CELLS:
        assert re.search(rf"^{re.escape(name)} +{row}", text, re.MULTILINE), name


@pytest.mark.parametrize("width", [80, 120])
def test_one_models_table_is_legible_on_a_terminal(whole, width):
    cells = tuple(cell for cell in whole.cells if cell.model == "LSTM")
    text = on_screen(cli_matrix.one("The model", replace(whole, cells=cells)), width)
    assert "…" not in text
    for runtime in RUNTIMES:
        assert re.search(rf"^{re.escape(runtime.name)} ", text, re.MULTILINE)


def test_many_models_with_the_same_refusal_are_one_note(whole):
    found = [note for note in cli_matrix.notes(whole) if note.verdict == "refused"]
    assert len(found) == 2
    assert all(note.models == tuple(CELLS) for note in found)
    assert cli_matrix.listed(tuple("abcdefg")) == "a, b, c, d and 3 more"
    assert cli_matrix.listed(("a", "b")) == "a, b"


def test_the_page_says_what_each_verdict_stands_on_and_what_wrote_it(whole):
    text = cli_matrix_page.page("fastlstm verify --all", {"Cell by cell": whole})
    assert text.startswith(
        "# An exported ONNX file on every runtime\n\nWritten by `fastlstm verify"
    )
    assert re.search(r"^Machine: .+ cores, .+ Python 3\.", text, re.MULTILINE)
    assert f"7 different sequences in one call: {7 * STEPS} steps" in text
    assert f"| {RUNTIMES[4].name} | - | {cell(LACKS)} |" in text
    assert f"| {RUNTIMES[0].name} | 1.2 | made for the tests |" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| LSTM |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3].endswith("†")
    assert cells[4].endswith(r"\*")
    assert cells[5:7] == ["refused", "missing"]
    assert "fake: no such op: LSTM" in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in tables)


def test_a_page_of_what_is_right_says_that_nothing_is_refused():
    found = matrix({"cell": lambda: runtime_fakes.MODEL}, [RIGHT])
    text = cli_matrix_page.page("fastlstm verify --all", {"Cell by cell": found})
    assert text.endswith("## What is refused or wrong\n\nNothing.\n")
