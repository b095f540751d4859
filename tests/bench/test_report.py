"""The bench's Markdown: every figure of the result, every loss, and nothing outside the markers."""

import copy
import json
import subprocess
import sys

import pytest

from fastlstm.bench import Result, report
from fastlstm.bench import Row as BenchRow


def row(model, mode, contender, median, p99, ratio, error=1.5e-7, note=""):
    samples = {"step": 4500, "sequence": 15}[mode] if median else 0
    return BenchRow(model, mode, contender, median, p99, samples, ratio, error, note)


ROWS = (
    row("LSTM 1x8", "step", "stream, by push", 101.4, 180.6, 1.0),
    row("LSTM 1x8", "step", "torch eager, by step", 45300.2, 61000.9, 446.75, 2.25e-7),
    row("LSTM 1x32", "step", "stream, by push", 150.0, 200.0, 1.0),
    row("LSTM 1x32", "sequence", "rival | fast", 66.0, 70.5, 0.9951),
    row("LSTM 1x32", "sequence", "stream, by run", 66.3, 71.0, 1.0),
    row("LSTM 1x8", "step", "broken_one", None, None, None, None, "refused: differs by 3.00e-02"),
)
DOCUMENT = Result(
    ROWS,
    {
        "processor": "Some CPU",
        "cores": 2,
        "load_average": 0.125,
        "governor": None,
        "system": "Linux",
        "python": "3.11.7",
        "vector_width": 16,
        "threads": 1,
        "versions": {"numpy": "2.4.6", "onnx": None},
    },
    rounds=15,
    steps=1000,
).to_dict()

EXPECTED = """\
Measured on: Some CPU, 2 cores, load 0.12 at the start, vectors of 16, 1 thread, Linux, \
Python 3.11.7, numpy 2.4.6, 15 interleaved rounds.

**One call a time step, the state carried.** Nanoseconds a time step.

| model | contender | median ns | p99 ns | times ours | greatest error |
| :-- | :-- | --: | --: | --: | --: |
| LSTM 1x8 | **stream, by push** | 101 | 181 | 1.00 | 1.5e-07 |
|  | torch eager, by step | 45,300 | 61,001 | 446.8 | 2.2e-07 |
| LSTM 1x32 | **stream, by push** | 150 | 200 | 1.00 | 1.5e-07 |

p99 is over 4,500 single calls. None is faster.

**One call for 1,000 time steps.** Nanoseconds a time step.

| model | contender | median ns | p99 ns | times ours | greatest error |
| :-- | :-- | --: | --: | --: | --: |
| LSTM 1x32 | rival \\| fast | 66 | 70 | 1.00 | 1.5e-07 |
|  | **stream, by run** | 66 | 71 | 1.00 | 1.5e-07 |

p99 is over 15 whole calls, each divided by its steps. Faster than ours: \
rival \\| fast on LSTM 1x32.

Not timed:

- broken\\_one on LSTM 1x8: refused: differs by 3.00e-02
"""


def test_the_section_holds_every_figure_and_every_loss():
    assert report.markdown(DOCUMENT) == EXPECTED


def test_a_result_without_times_still_says_why():
    document = {**DOCUMENT, "rows": DOCUMENT["rows"][-1:]}
    assert "None was timed." in report.markdown(document)
    assert report.markdown(document).endswith("refused: differs by 3.00e-02\n")


def test_only_what_is_between_the_markers_changes():
    text = f"before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n"
    once = report.replace(text, "new\n")
    assert once == f"before\n\n{report.BEGIN}\nnew\n{report.END}\n\nafter\n"
    assert report.replace(once, "new\n") == once


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        report.BEGIN,
        f"{report.END} {report.BEGIN}",
        f"{report.BEGIN} {report.BEGIN} {report.END}",
    ],
)
def test_markers_that_are_not_one_pair_are_refused(text):
    with pytest.raises(ValueError, match="expected one line <!-- bench:begin -->"):
        report.replace(text, "new")


def test_the_command_writes_the_file(tmp_path):
    result, readme = tmp_path / "lstm.json", tmp_path / "README.md"
    result.write_text(json.dumps(DOCUMENT))
    readme.write_text(f"# Title\n{report.BEGIN}\n{report.END}\nend\n")
    command = [sys.executable, "-m", "fastlstm.bench.report", result, readme]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"wrote {readme}\n", "")
    assert readme.read_text() == f"# Title\n{report.BEGIN}\n{EXPECTED}{report.END}\nend\n"


def without(key):
    document = copy.deepcopy(DOCUMENT)
    del document[key]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "lstm.json: Expecting property name"),
        ("[]", "lstm.json: 'list' object has no attribute 'get'"),
        ('{"schema": "other"}', "lstm.json: expected a result of schema fastlstm-bench-1, found"),
        (without("machine"), "lstm.json: no 'machine' in the result"),
        (json.dumps(DOCUMENT), "README.md: expected one line <!-- bench:begin -->"),
        (None, "lstm.json: No such file"),
    ],
)
def test_bad_files_are_named_and_the_readme_stays(tmp_path, capsys, content, message):
    result, readme = tmp_path / "lstm.json", tmp_path / "README.md"
    readme.write_text("no markers\n")
    if content is not None:
        result.write_text(content)
    assert report.main([str(result), str(readme)]) == 1
    assert message in capsys.readouterr().err
    assert readme.read_text() == "no markers\n"


def test_wrong_arguments_give_the_usage(capsys):
    assert report.main(["one"]) == 2
    assert "RESULT.json README.md" in capsys.readouterr().err
