"""The HTML page: whole by itself, every figure in it, names escaped, the same bytes each time."""

import re

import pytest

pytest.importorskip("jinja2", reason="jinja2 is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("hdrh", reason="hdrhistogram is not installed")

from report_reading import Page, ns_of, number

import sample_document as sample
from fastlstm.bench.reports.page import page

SIZES = (32, 512)


@pytest.fixture(scope="module")
def text():
    return page(sample.ladder(SIZES), "bench/results/ladder.json")


@pytest.fixture(scope="module")
def read(text):
    return Page(text)


def test_nothing_is_loaded_from_anywhere(text, read):
    tags = {tag for tag, _ in read.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in read.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value.startswith("#")
                assert value[1:] in read.ids
    assert "@import" not in text
    # What is left of addresses is a namespace and the source that the document names, as text.
    found = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert found == {"http://www.w3.org/2000/svg", "https://example.org/figures_2024,"}
    for name in re.findall(r"url\(([^)]*)\)", text):
        assert name.startswith("#")
        assert name[1:] in read.ids
    assert len(read.ids) == len(set(read.ids))


def test_every_timed_row_is_in_its_table(read):
    document = sample.ladder(SIZES)
    for row in document.rows:
        if row.ns is None:
            continue
        header, *lines = read.tables[f"{row.model}, {row.mode}: time of a step"]
        names = [one[0] for one in header]
        found = {line[0][0]: dict(zip(names, line, strict=True)) for line in lines}
        line = found[row.contender.replace("reference", "reference (float64)")]
        median, interval = line["median"]
        assert ns_of(median) == pytest.approx(row.ns.value, rel=6e-3)
        assert ns_of(interval.split(" to ")[1]) == pytest.approx(row.ns.high, rel=6e-3)
        assert number(line["times ours"][0]) == pytest.approx(row.ratio.value, rel=6e-3, abs=0.06)
        if row.latency:
            for one in row.latency.percentiles:
                assert ns_of(line[f"p{one.percent:g}"][0]) == pytest.approx(one.ns, rel=6e-3)
            assert line["calls"] == [f"{row.latency.samples:,}"]


def test_losses_are_marked_and_told(text, read):
    told = " ".join(" ".join(read.texts).split())
    assert "Faster than ours: ONNX Runtime int8, whose int8 weights give other numbers" in told
    assert re.findall(r'<td class="faster">([^<]*)', text).count("0.72") == 2
    title = "LSTM 1xH, step: our time of a step, the others as times ours"
    refused = next(line for line in read.tables[title] if line[0] == ["OpenCV dnn"])
    assert refused[1:] == [["refused", "1"]] * 2
    assert "refused: no state | between calls <opencv_dnn> & no *fix*" in told
    assert "&lt;opencv_dnn&gt; &amp; no *fix*" in text


def test_plots_stand_inline_and_have_words(read):
    pictures = [dict(a) for tag, a in read.tags if tag == "svg"]
    # A curve over sizes for each mode; percentiles and errors for each model in each mode.
    assert len(pictures) == 2 + 2 * 2 * 2
    assert all(one["role"] == "img" and one["aria-label"] for one in pictures)
    assert not any("width" in one for one in pictures)
    words = [one.strip() for one in read.texts]
    assert words.count("LSTM 1xH, step") == 1
    assert words.count("LSTM 1x512, sequence: single calls") == 1


def test_what_surrounds_the_figures_is_there(text, read):
    told = " ".join(" ".join(read.texts).split())
    assert "frequency scaling <on> & the governor is unknown" in told
    assert "Which starts fastest?" in told
    assert "Maker's C++ runtime" in told
    assert "bench/results/ladder.json" in told
    assert "fastlstm bench ladder --json result.json" in told
    assert "that --json FILE writes" in " ".join(" ".join(Page(page(sample.audio())).texts).split())
    configured = {line[0][0]: line for line in read.tables["Configuration of each contender"]}
    assert configured["ONNX Runtime int8"][1:] == [
        ["1.31.1"],
        ["int8"],
        ["one thread; dynamic quantisation, weights int8"],
    ]
    for feature in ("prefers-color-scheme: dark", "@media print", "overflow-x: auto", "viewport"):
        assert feature in text
    machine = {line[0][0]: line[1][0] for line in read.tables["Machine"]}
    assert machine["versions"] == "numpy 2.4.6, torch 2.13.0+cpu"
    starts = read.tables["LSTM 1x512, from the start of a process"]
    assert starts[1][0] == ["fastlstm push"]
    assert starts[1][2] == ["291 ms", "288 to 295 ms"]


def test_hostile_names_stay_words():
    name = '<script>alert("x")</script> & | _$a$'
    read = Page(page(sample.renamed(sample.audio(), "C++ by hand", name)))
    assert "script" not in {tag for tag, _ in read.tags}
    assert any(name in words for words in read.texts)
    lines = read.tables["amp & cab, step: time of a step"][1:]
    assert [name] in [line[0] for line in lines]
    title = "amp & cab, 64 samples every 1.333 ms: time of a call"
    found = {line[0][0]: line for line in read.tables[title]}
    names = [one[0] for one in read.tables[title][0]]
    assert found[sample.SLOW][names.index("missed")] == ["overrun", "2,990 of 3,000"]


def test_the_same_document_gives_the_same_bytes(text):
    assert page(sample.ladder.__wrapped__(SIZES), "bench/results/ladder.json") == text


def test_where_all_were_refused_the_reasons_are_left():
    for document in (sample.ladder(SIZES), sample.audio()):
        read = Page(page(sample.untimed(document)))
        told = " ".join(" ".join(read.texts).split())
        assert "There was no rival to time." in told
        models = ", ".join(model.name for model in document.models)
        assert f"OpenVINO on {models}: refused: <all>" in told
