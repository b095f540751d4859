"""Markdown: every figure with its interval, every loss and refusal, and nothing read as a mark."""

import pytest

pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("hdrh", reason="hdrhistogram is not installed")

from report_reading import columns, markdown_tables, ns_of, number

import sample_document as sample
from fastlstm.bench.reports import markdown
from fastlstm.bench.reports.document import Noise


@pytest.fixture(scope="module")
def text():
    return markdown.report(sample.ladder())


def split(words):
    """`101 ns (98.4 to 103 ns)` as its figure and its interval."""
    figure, _, interval = words.replace("**", "").partition(" (")
    return figure, interval.rstrip(")")


def test_every_timed_row_is_there_with_intervals_and_counts(text):
    tables = markdown_tables(text)
    document = sample.ladder()
    for row in document.rows:
        if row.ns is None:
            continue
        found = columns(tables[f"{row.model}, {row.mode}: time of a step"])
        name = row.contender.replace("NumPy reference", "NumPy reference (float64)")
        line = found[name]
        median, interval = split(line["median"])
        assert ns_of(median) == pytest.approx(row.ns.value, rel=6e-3)
        low, high = interval.split(" to ")
        unit = high.split()[1]
        assert ns_of(low if " " in low else f"{low} {unit}") == pytest.approx(row.ns.low, rel=6e-3)
        assert ns_of(high) == pytest.approx(row.ns.high, rel=6e-3)
        ratio, _ = split(line["times ours"])
        assert number(ratio) == pytest.approx(row.ratio.value, rel=6e-3, abs=0.06)
        if row.latency is None:
            assert line["max"] == "-"
            continue
        assert line["calls"] == f"{row.latency.samples:,}"
        assert ns_of(line["max"]) == pytest.approx(row.latency.max_ns, rel=6e-3)
        there = {f"p{p.percent:g}": p for p in row.latency.percentiles}
        for name in ("p50", "p90", "p99", "p99.9"):
            if name in there:
                figure, interval = split(line[name])
                assert ns_of(figure) == pytest.approx(there[name].ns, rel=6e-3)
                # Whole nanoseconds may leave an interval without a width.
                high = interval.split(" to ")[1] if interval else figure
                assert ns_of(high) == pytest.approx(there[name].high, rel=6e-3)
            else:
                assert line.get(name, "-") == "-"


def test_ours_and_losses_are_bold_and_the_floor_is_not(text):
    tables = markdown_tables(text)
    found = tables["LSTM 1x512, step: time of a step"]
    names = [row[0] for row in found]
    assert "**fastlstm push**" in names
    assert f"*{sample.FLOOR}*" in names
    bold = {row[0] for row in found[1:] if row[2].startswith("**")}
    assert bold == {sample.INT8}


def test_losses_draws_and_refusals_are_listed_by_mode(text):
    step, sequence = text.split("## sequence")
    assert "- Faster than ours: ONNX Runtime int8, whose int8 weights give" in step
    assert sequence.count("ONNX Runtime on LSTM 1x512") == 2
    reason = "refused: no state \\| between calls \\<opencv\\_dnn> \\& no \\*fix\\*"
    models = "LSTM 1x8, LSTM 1x32, LSTM 1x128, LSTM 1x512"
    assert f"- OpenCV dnn on {models}: {reason}\n" in step
    assert (
        "- AOTInductor on LSTM 1x512: refused: differs from the reference by 3.00e-02" in sequence
    )


def test_machine_noise_configuration_and_sources_are_there(text):
    assert "**Warning**: frequency scaling \\<on> \\& the governor is unknown" in text
    tables = markdown_tables(text)
    assert columns(tables["Machine"])["versions"][""] == "numpy 2.4.6, torch 2.13.0+cpu"
    assert columns(tables["Noise"])["its slowest above its fastest"][""] == "31 %"
    configured = columns(tables["Configuration of each contender"])
    assert configured["ONNX Runtime int8"]["weights"] == "int8"
    assert "dynamic quantisation" in configured["ONNX Runtime int8"]["configuration"]
    published = columns(tables["Published by others, on their machines; not measured here"])
    assert ns_of(published["Maker's C++ runtime"]["published"]) == 140.0
    assert "https://example.org/figures\\_2024, table 2" in text
    assert "`fastlstm bench ladder --json result.json`" in text


def test_scheduled_calls_and_names_that_are_marks():
    name = "C++ | by_hand <b>*&lt;"
    document = sample.renamed(sample.audio(), "C++ by hand", name)
    text = markdown.report(document)
    escaped = "C++ \\| by\\_hand \\<b>\\*\\&lt;"
    assert f"- Faster than ours: {escaped} on amp \\& cab (0.83" in text
    (title,) = (t for t in markdown_tables(text) if "every 1.333 ms" in t)
    found = columns(markdown_tables(text)[title])
    assert found[sample.SLOW]["missed"] == "**overrun** (2,990 of 3,000)"
    assert found["OpenVINO"]["missed"] == "**3** (of 3,000)"
    assert found[sample.OURS_RUN]["missed"] == "0 (of 3,000)"


def test_the_same_document_gives_the_same_bytes(text):
    assert markdown.report(sample.ladder.__wrapped__()) == text


def test_a_document_without_a_time_still_says_why():
    document = sample.ladder()
    rows = tuple(row for row in document.rows if row.ns is None)
    quiet = Noise(calibration_ns=1.0, calibration_spread=0.0, calibration_worst=0.0)
    text = markdown.report(
        document.model_copy(update={"rows": rows, "starts": (), "published": (), "noise": quiet})
    )
    assert "There was no rival to time." in text
    assert "refused: no state" in text
    assert "Warning" not in text


def test_code_keeps_its_backticks():
    assert markdown.code("a b") == "`a b`"
    assert markdown.code("a `b` ``") == "``` a `b` `` ```"


def test_the_line_of_a_machine_and_the_schema_of_plain_documents():
    document = {
        "schema": "x-1",
        "rounds": 15,
        "machine": {
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
    }
    assert markdown.machine_line(document) == (
        "Measured on: Some CPU, 2 cores, load 0.12 at the start, vectors of 16, 1 thread, Linux, "
        "Python 3.11.7, numpy 2.4.6, 15 interleaved rounds."
    )
    markdown.require(document, "x-1", "make x")
    with pytest.raises(ValueError, match=r"schema y-2, found 'x-1': write one with `make y`"):
        markdown.require(document, "y-2", "make y")
