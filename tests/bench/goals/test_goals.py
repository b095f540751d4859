"""The goals: each part measures what it says by the given clock, and the report hides nothing."""

import json
import math
from dataclasses import replace

import pytest

from fastlstm.bench.floor.roofline import SIZES
from fastlstm.bench.goals import cold_start, goals
from fastlstm.bench.goals.ladder import LADDER
from fastlstm.bench.goals.parts import CPP_NS, FLOOR_GOALS, SEQUENCE_GOALS, STEP_GOALS
from fastlstm.bench.goals.report import markdown
from fastlstm.bench.goals.rows import QUICK, Part, Row, Settings


@pytest.fixture
def tiny(growing_clock):
    return Settings(1, 20, 30, (8,), 100, 1, 1, growing_clock)


def rows_of(number, settings):
    return goals.PARTS[number].measure(settings, lambda words: None)


def test_a_goal_is_met_up_to_its_value():
    assert Row("a", 1.0, 1.0).met is True
    assert Row("a", 1.01, 1.0).met is False
    assert Row("a", None, 1.0, note="missing").met is False
    assert Row("a", 1.0).met is None


def test_the_goals_are_those_agreed():
    assert FLOOR_GOALS == {64: 0.85, 128: 1.1, 256: 1.1, 512: 1.1}
    assert SEQUENCE_GOALS == {8: 0.2, 16: 0.2, 32: 0.3, 64: 0.4, 128: 0.6, 256: 0.75, 512: 0.75}
    assert STEP_GOALS == {8: 0.06, 16: 0.06, 32: 0.06, 64: 0.12, 128: 0.25, 256: 0.5}
    assert list(goals.PARTS) == list(range(1, 10))


def test_over_the_floor(tiny):
    (row,) = rows_of(1, tiny)
    assert row.what == "H = 8"
    assert row.measured == pytest.approx(row.figures["step ns"] / row.figures["load ns"])
    assert row.goal is None
    assert set(FLOOR_GOALS) < set(SIZES)


@pytest.mark.parametrize(
    ("number", "goals_of"),
    [(2, [0.2]), (3, [0.8] * 4), (4, [0.06])],
)
def test_over_onnx_runtime(number, goals_of, tiny):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    rows = rows_of(number, tiny)
    assert [row.goal for row in rows] == goals_of
    for row in rows:
        assert row.measured == pytest.approx(
            row.figures["ours ns"] / row.figures["ONNX Runtime ns"]
        )
        assert row.figures["error"] < 1e-6
        assert "H = 8" in row.what


def test_without_onnx_runtime_the_goal_is_not_met_and_says_why(tiny, monkeypatch):
    monkeypatch.setattr("fastlstm.roads.Road.missing", lambda road: "onnxruntime not installed")
    monkeypatch.setattr(
        "fastlstm.bench.goals.parts.our_contender",
        lambda *_: pytest.fail("nothing to time against"),
    )
    (row,) = rows_of(2, tiny)
    assert (row.measured, row.met) == (None, False)
    assert row.note == "missing: onnxruntime not installed"


def test_the_cost_of_a_call_is_a_difference_within_a_round(tiny):
    push, step = rows_of(5, tiny)
    figures = push.figures
    assert push.measured == pytest.approx(figures["push ns"] - figures["loop ns"])
    assert step.measured == pytest.approx(figures["step ns"] - figures["push ns"])
    assert (push.goal, step.goal) == (200, 150)


def test_over_cpp(tiny):
    lstm, gru = rows_of(6, tiny)
    assert (lstm.figures["C++ ns"], gru.figures["C++ ns"]) == (36.7, 35.0)
    for row in (lstm, gru):
        assert row.measured == pytest.approx(row.figures["ours ns"] / row.figures["C++ ns"])
        assert row.figures["error"] < 1e-6
        assert row.goal == 1
    assert [len(figures) for figures in CPP_NS.values()] == [10, 10]


def test_the_ladder(tiny):
    (row,) = rows_of(9, replace(tiny, sizes=(128,)))
    figures = row.figures
    assert row.what == "2 x 128"
    # Two layers of 4 * 128 rows by 256 columns and two biases, and a Dense to 32.
    assert figures["parameters"] == 2 * 512 * (256 + 2) + 32 * 129
    assert row.measured == pytest.approx(figures["push us"] / figures["load us"])
    assert figures["ours over the card"] == pytest.approx(figures["push us"] / 1.9)
    assert [rung.card_us for rung in LADDER] == [1.9, 3.0, 4.2, 4.3, 8.5]


def test_a_cold_and_a_warm_start(tiny):
    warm, cold, numpy = rows_of(7, tiny)
    assert [row.goal for row in (warm, cold, numpy)] == [0.6, 5.0, None]
    # Two looks at the clock each: what is between them is between 1,000 and 1,100 ns.
    assert all(1000e-9 < row.measured < 1100e-9 for row in (warm, cold, numpy))


def test_a_start_that_answers_wrongly_or_not_is_no_time(tmp_path, growing_clock):
    with pytest.raises(ArithmeticError, match="the first output was 0, expected 1"):
        cold_start._start("print(0)", tmp_path, tmp_path, 1.0, growing_clock)
    with pytest.raises(Exception, match="returned non-zero exit status 3"):
        cold_start._start("raise SystemExit(3)", tmp_path, tmp_path, 1.0, growing_clock)


def fails(settings, tell):
    raise OSError("no such core")


PARTS = {
    1: Part(
        "One | part",
        "time over time",
        lambda settings, tell: [
            Row("H = 8", 0.0604, 0.06, {"ours ns": 1234.5, "by": "8_vectors", "error": 1.5e-8}),
            Row("H = 16", 0.25, 0.75, {"ours ns": 12.34}),
            Row("H = 32", None, 0.75, note="missing: x"),
            Row("H = 64", 3.456),
        ],
    ),
    4: Part("Another part", "seconds", fails),
    5: Part("Free", "seconds", lambda settings, tell: [Row("all", 2.0)]),
}

EXPECTED = """\
|  | part | met | of | seconds |
| --: | :-- | --: | --: | --: |
| 1 | One \\| part | 1 | 3 | 0 |
| 4 | Another part | 0 | 0 | 0 |
| 5 | Free | 0 | 0 | 0 |

## 1. One \\| part

Measured: time over time.

|  | ours ns | by | error | measured | goal |  |
| :-- | --: | --: | --: | --: | --: | --: |
| H = 8 | 1,234 | 8\\_vectors | 1.5e-08 | 0.060 | 0.06 | **not met** |
| H = 16 | 12.3 | - | - | 0.250 | 0.75 | met |
| H = 32 | - | - | - | - | 0.75 | **not met** |
| H = 64 | - | - | - | 3.456 | - |  |

Not met: H = 8 (0.060, goal 0.06); H = 32 (-, goal 0.75). H = 32: missing: x.

## 4. Another part

Measured: seconds.

**Failed**: OSError: no such core

## 5. Free

Measured: seconds.

|  | measured |
| :-- | --: |
| all | 2.000 |
"""


def test_the_report_holds_every_value_goal_and_failure():
    told = []
    document = goals.measure_goals([1, 4, 5], Settings(), told.append, PARTS)
    text = markdown(json.loads(json.dumps(document, allow_nan=False)))
    assert text.startswith(
        "# The goals of speed, and what was measured\n\nWritten by `make limits`"
    )
    assert text.partition("\n\n|")[2] == EXPECTED[1:]
    assert "A quick run" not in text
    assert told[0] == "part 1: One | part"
    assert any(words.startswith("part 4: OSError: no such core, ") for words in told)
    document["settings"]["quick"] = True
    assert "**A quick run: its figures mean nothing.**" in markdown(document)
    with pytest.raises(ValueError, match="expected a result of schema fastlstm-limits-1"):
        markdown({"schema": "other"})


def test_the_command_writes_both_files(tmp_path, monkeypatch, capsys):
    seen = []

    def measure(numbers, settings, tell):
        seen.append((numbers, settings))
        numbers = [number for number in numbers if number in PARTS]
        return measure_goals(numbers, settings, tell, PARTS)

    measure_goals = goals.measure_goals
    monkeypatch.setattr(goals, "measure_goals", measure)
    figures, tables = tmp_path / "new" / "limits.json", tmp_path / "limits.md"
    arguments = ["--json", str(figures), "--markdown", str(tables)]
    assert goals.main([*arguments, "--only", "5,1", "--rounds", "3"]) == 0
    assert seen == [([1, 5], Settings(rounds=3))]
    document = json.loads(figures.read_text())
    assert [part["number"] for part in document["parts"]] == [1, 5]
    assert tables.read_text() == markdown(document)
    assert capsys.readouterr().out == f"wrote {figures}\nwrote {tables}\n"
    # Everything, of which one part fails.
    assert goals.main(["--quick"]) == 1
    assert seen[1] == (list(range(1, 10)), QUICK)
    assert "**Failed**: OSError" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--only", "0"], ["--only", "1,x"], ["--rounds", "0"]])
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        goals.main(arguments)
    assert stop.value.code == 2
    assert f"{arguments[0]}: expected" in capsys.readouterr().err


def test_all_settings_of_a_run_are_in_its_document():
    assert Settings().to_dict()["rounds"] == 15
    assert "clock" not in Settings().to_dict()
    assert all(math.isfinite(value) for value in (QUICK.rounds, QUICK.steps, QUICK.single_calls))
