"""What `make bench` says of two saved runs: verdicts by the rule, and never a failure for speed."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

PATH = Path(__file__).parents[2] / "bench" / "suites" / "moved.py"


@pytest.fixture(scope="module")
def moved():
    specification = importlib.util.spec_from_file_location("moved", PATH)
    module = importlib.util.module_from_spec(specification)
    # Where the dataclasses of a module look for its names.
    sys.modules["moved"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["moved"]


def bench(name, median, low, high, steps=None):
    """One benchmark as pytest-benchmark saves it, given in nanoseconds a call."""
    return {
        "name": f"test_{name}",
        "fullname": f"bench/suites/test_some.py::test_{name}",
        "extra_info": {} if steps is None else {"steps": steps},
        "stats": {"median": median / 1e9, "q1": low / 1e9, "q3": high / 1e9, "iqr": 0, "rounds": 9},
    }


BEFORE = [
    bench("push[LSTM-8]", 250_000, 240_000, 260_000, steps=1000),
    bench("run[LSTM-8]", 50_000, 49_000, 51_000, steps=1000),
    bench("wide", 100, 50, 150),
    bench("steady", 100, 99, 101),
    bench("reset", 5_000, 4_900, 5_100),
    bench("removed", 70, 69, 71),
]
AFTER = [
    bench("push[LSTM-8]", 300_000, 290_000, 310_000, steps=1000),
    # Half the steps in half of the time: the same.
    bench("run[LSTM-8]", 25_000, 24_500, 25_500, steps=500),
    bench("wide", 140, 90, 190),
    bench("steady", 104.9, 104.8, 105),
    bench("reset", 4_000, 3_900, 4_100),
    bench("added", 80, 79, 81),
]


def save(folder, number, benchmarks, *, processor="Some CPU", age_s=0, **others):
    folder.mkdir(exist_ok=True)
    path = folder / f"{number:04d}_0123456789abcdef_20260102.json"
    document = {
        "machine_info": {
            "node": "someones-computer",
            "python_version": "3.11.7",
            "cpu": {"brand_raw": processor},
        },
        "commit_info": {"id": f"{number}123456789abcdef", "dirty": number == 2},
        "datetime": "2026-01-02T03:04:05.678+00:00",
        "benchmarks": benchmarks,
        **others,
    }
    path.write_text(json.dumps(document))
    time = path.stat().st_mtime - age_s
    os.utime(path, (time, time))
    return path


@pytest.fixture
def two_runs(moved, tmp_path):
    return tuple(
        moved.read(save(tmp_path / "x", k, runs)) for k, runs in enumerate((BEFORE, AFTER), 1)
    )


def test_times_are_of_a_step(two_runs):
    before, after = two_runs
    push = before.timings["bench/suites/test_some.py::test_push[LSTM-8]"]
    assert (push.name, push.median_ns) == ("push[LSTM-8]", pytest.approx(250))
    assert (push.low_ns, push.high_ns) == (pytest.approx(240), pytest.approx(260))
    assert before.title == "1123456789, 2026-01-02 03:04"
    assert after.title == "2123456789, with changes, 2026-01-02 03:04"


def test_verdicts_keep_the_rule_and_the_slowest_comes_first(moved, two_runs):
    found = moved.changes(*two_runs)
    assert [
        (change.name, change.ratio and round(change.ratio, 3), change.verdict) for change in found
    ] == [
        ("wide", 1.4, "same"),  # the middle halves overlap
        ("push[LSTM-8]", 1.2, "slower"),
        ("steady", 1.049, "same"),  # under 5 %
        ("run[LSTM-8]", 1.0, "same"),
        ("reset", 0.8, "faster"),
        ("added", None, "new"),
        ("removed", None, "gone"),
    ]


def test_swapped_runs_give_the_opposite(moved, two_runs):
    opposite = {"slower": "faster", "faster": "slower", "new": "gone", "gone": "new"}
    there = {change.name: change.verdict for change in moved.changes(*two_runs)}
    back = {change.name: change.verdict for change in moved.changes(*two_runs[::-1])}
    assert back == {name: opposite.get(verdict, verdict) for name, verdict in there.items()}


def test_the_report_of_two_runs(moved, two_runs, capsys):
    moved.report(*two_runs, Console(width=80, soft_wrap=True, color_system=None))
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[3:10]]
    assert rows[:2] == [
        ["wide", "100", "140", "1.40", "same"],
        ["push[LSTM-8]", "250", "300", "1.20", "slower"],
    ]
    assert rows[3] == ["run[LSTM-8]", "50.0", "50.0", "1.00", "same"]
    assert rows[5:] == [["added", "-", "80.0", "-", "new"], ["removed", "70.0", "-", "-", "gone"]]
    assert len({line.rstrip().rfind("same") for line in lines[3:10] if "same" in line}) == 1
    text = "\n".join(lines)
    assert "Before: 1123456789, 2026-01-02 03:04. After: 2123456789, with changes" in text
    assert moved.RULE in text
    assert "1 slower, 1 faster of 5. The median of all ratios is 1.05:" in text
    assert "Not the same machine" not in text


def test_the_command_takes_the_last_two_of_the_newest_folder(moved, tmp_path, capsys):
    save(tmp_path / "new", 1, BEFORE[:1])
    save(tmp_path / "new", 9, BEFORE)
    save(tmp_path / "new", 10, AFTER)
    save(tmp_path / "old", 11, AFTER[:1], age_s=9)
    assert [path.name[:4] for path in moved.last_two(tmp_path)] == ["0009", "0010"]
    assert moved.main([str(tmp_path)]) == 0
    assert "1 slower, 1 faster of 5" in capsys.readouterr().out


def test_the_first_run_has_nothing_to_compare_with(moved, tmp_path, capsys):
    save(tmp_path / "x", 1, BEFORE)
    assert moved.main([str(tmp_path)]) == 0
    found = capsys.readouterr().out
    assert "There is nothing to compare with yet" in found
    assert [line.split()[2] for line in found.splitlines() if "push" in line] == ["250"]


def test_no_figure_is_cut_on_a_narrow_screen(moved, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    save(tmp_path / "x", 1, [bench("whole_sequence_in_both_directions[LSTM-64]", 12_345_678, 1, 2)])
    assert moved.main([str(tmp_path)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "whole" in line)
    assert row.split() == [
        *("whole", "sequence", "in", "both", "directions[LSTM-64]"),
        *("-", "12,345,678", "-", "new"),
    ]


def test_runs_of_two_machines_are_told_apart(moved, tmp_path, capsys):
    save(tmp_path / "x", 1, BEFORE)
    save(tmp_path / "x", 2, AFTER[-1:], processor="Other CPU")
    assert moved.main([str(tmp_path)]) == 0
    found = capsys.readouterr().out
    assert "Not the same machine: Some CPU, Python 3.11.7, then Other CPU" in found
    assert "the two runs have no benchmark in common" in found
    assert "someones-computer" not in found


def test_what_cannot_be_read_is_named(moved, tmp_path, capsys):
    assert moved.main([str(tmp_path)]) == 1
    assert f"{tmp_path}: no run is saved there: make bench" in capsys.readouterr().err
    path = save(tmp_path / "x", 1, [{"name": "test_a"}])
    assert moved.main([str(tmp_path)]) == 1
    assert f"{path}: expected a run that pytest-benchmark saved" in capsys.readouterr().err
    assert moved.main(["a", "b"]) == 2
    assert "usage:" in capsys.readouterr().err
