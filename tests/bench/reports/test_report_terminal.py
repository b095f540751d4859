"""The terminal's tables: every figure, the losses and the noise, within 100 columns."""

import io
import re

import pytest

pytest.importorskip("rich", reason="rich is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("hdrh", reason="hdrhistogram is not installed")

from report_reading import ns_of, number
from rich.console import Console

import sample_document as sample
from fastlstm.bench.reports import terminal


def shown(document, width=100):
    text = io.StringIO()
    Console(file=text, width=width).print(terminal.report(document))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    return lines


@pytest.fixture(scope="module")
def lines():
    return shown(sample.ladder())


def table(lines, title):
    """The lines of a table after its rule, up to the empty line."""
    begin = lines.index(title)
    rule = next(k for k in range(begin, len(lines)) if lines[k].startswith("───"))
    end = next(k for k in range(rule, len(lines)) if not lines[k])
    return lines[rule + 1 : end]


def figures(line, name):
    """Times and ratio of a line that begins with `name`."""
    assert line.startswith(name)
    return re.findall(
        r"[\d.,]+ (?:ns|µs|ms|s)\b|[\d.,]+e-\d\d|\([^)]*\)|[\d.,]+", line[len(name) :]
    )


def test_each_row_is_there_with_its_figures_fastest_first(lines):
    document = sample.ladder()
    rows = [row for row in document.rows if (row.model, row.mode) == ("LSTM 1x512", "step")]
    timed = sorted((row for row in rows if row.ns), key=lambda row: row.ns.value)
    found = table(lines, "LSTM 1x512, step: time of a step")
    for line, row in zip(found, timed, strict=False):
        name = row.contender + (" (float64)" if row.contender == "NumPy reference" else "")
        median, ratio, *rest = figures(line, name)
        assert ns_of(median) == pytest.approx(row.ns.value, rel=6e-3)
        assert number(ratio) == pytest.approx(row.ratio.value, abs=0.06)
        if row.latency is None:
            assert "-" in line
            continue
        interval = rest.pop(0) if row.ratio.low != row.ratio.high else None
        if interval:
            low, high = map(number, interval.strip("()").split("-"))
            assert (low, high) == pytest.approx((row.ratio.low, row.ratio.high), abs=0.06)
        *times, error = rest
        expected = [p.ns for p in row.latency.percentiles] + [row.latency.max_ns]
        assert [ns_of(one) for one in times] == pytest.approx(expected, rel=6e-3)
        assert float(error) == pytest.approx(row.error, rel=0.06)
    assert found[0].startswith(sample.INT8)
    assert found[len(timed) :] == [f"  {sample.REFUSING}: {sample.REFUSAL}"]


def test_warnings_come_first_and_advice_last(lines):
    document = sample.ladder()
    assert lines[:2] == [f"Warning: {one}" for one in document.noise.warnings]
    assert lines[-1] == "  no machine code to compile & keep"
    assert "Which answers fastest, one sample at a time?: fastlstm push" in lines


def test_the_ladder_is_a_matrix_of_sizes(lines):
    found = table(lines, "LSTM 1xH, step: our time of a step, the others as times ours")
    document = sample.ladder()
    times = {(row.contender, row.model): row for row in document.rows if row.mode == "step"}
    models = [model.name for model in document.models]
    first = figures(found[0], sample.OURS)
    assert [ns_of(one) for one in first] == pytest.approx(
        [times[sample.OURS, model].ns.value for model in models], rel=6e-3
    )
    (eager,) = (line for line in found if line.startswith("torch eager"))
    assert [number(one) for one in figures(eager, "torch eager")] == pytest.approx(
        [times["torch eager", model].ratio.value for model in models], abs=0.06
    )
    (refused,) = (line for line in found if line.startswith(sample.REFUSING))
    assert refused.split()[2:] == ["[1]"] * 4
    others = table(lines, "LSTM 1xH, sequence: our time of a step, the others as times ours")
    assert f"  1: torch cells: {sample.UNSUPPORTED}" in others
    assert found[-1] == f"  1: {sample.REFUSING}: {sample.REFUSAL}"
    assert found[-2].startswith(sample.FLOOR)


def test_a_ladder_of_many_sizes_is_cut_into_parts_that_fit():
    lines = shown(sample.ladder((8, 16, 32, 64, 128, 256, 512, 768, 1024)))
    title = "LSTM 1xH, sequence: our time of a step, the others as times ours"
    begins = [k for k, line in enumerate(lines) if line == title]
    heads = [lines[k + 1].split()[2:] for k in begins]
    assert heads == [["8", "16", "32", "64", "128", "256", "512", "768"], ["1,024"]]


def test_few_rounds_hold_the_median_with_less_confidence():
    document = sample.ladder((8, 32))
    rows = tuple(row.model_copy(update={"rounds_ns": row.rounds_ns[:3]}) for row in document.rows)
    told = " ".join(shown(document.model_copy(update={"rows": rows})))
    # Of three values, all lie on one side of the median in 2 of 8 cases.
    assert "medians over 3 interleaved rounds" in told
    assert "hold the median with 75 % confidence" in told


def test_losses_and_draws_are_told(lines):
    told = " ".join(lines)
    assert "step: fastlstm push is the fastest on 3 of 4 models beside 11 rivals." in told
    assert (
        "Faster than ours: ONNX Runtime int8, whose int8 weights give other numbers, on LSTM 1x512"
        in told
    )
    assert "Not told apart from ours (the interval holds 1): ONNX Runtime on LSTM 1x512." in told
    other = " ".join(shown(sample.audio()))
    assert "Faster than ours: C++ by hand on amp & cab (0.83" in other
    assert "fastlstm push is not the fastest beside 13 rivals." in other


def test_scheduled_calls_show_what_they_missed():
    found = table(shown(sample.audio()), "amp & cab, 64 samples every 1.333 ms: time of a call")
    assert figures(found[0], sample.OURS_RUN)[-3] == "0"
    (late,) = (line for line in found if line.startswith("OpenVINO"))
    assert figures(late, "OpenVINO")[-3] == "3"
    (slow,) = (line for line in found if line.startswith(sample.SLOW))
    assert slow.split()[-3] == "overrun"
    row = next(row for row in sample.audio().rows if row.contender == sample.SLOW)
    assert float(slow.split()[-2]) == pytest.approx(row.times_real_time, abs=0.006)


def test_starts_have_every_figure(lines):
    (row,) = (
        line
        for line in table(lines, "LSTM 1x32, from the start of a process")
        if line.startswith(sample.OURS)
    )
    found = " ".join(row[len(sample.OURS) :].split())
    assert found == "9.80 s 291 ms 41.0 µs 162 ns 0 131 MB 18.7 kB 170 MB 1.5e-08"
    assert "  OpenCV dnn: refused: no state between calls" in lines


def test_names_are_never_read_as_markup():
    name = "[bold]x[/] [red"
    lines = shown(sample.renamed(sample.audio(), "Rust_crate", name))
    assert any(line.startswith(name) for line in lines)


def test_long_names_are_folded_and_no_figure_is_cut():
    long = "a contender with a name that is far too long for a table of figures"
    lines = shown(sample.renamed(sample.audio(), "OpenVINO", long))
    assert any("a contender with" in line for line in lines)


def test_where_all_were_refused_the_reasons_are_left():
    lines = shown(sample.untimed(sample.ladder()))
    assert lines.count("  OpenVINO: refused: <all>") == 8
    assert "step: There was no rival to time." in lines
