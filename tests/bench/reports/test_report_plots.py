"""The plots: what is drawn is what was measured, names never overlap, colours are told apart."""

import hashlib
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("hdrh", reason="hdrhistogram is not installed")

from matplotlib.backends.backend_agg import FigureCanvasAgg

import sample_document as sample
from fastlstm.bench.reports import plot_style, plots
from fastlstm.bench.reports.selection import ladders

HERE = Path(__file__).parent

ITEMS = tuple(ladders(sample.ladder()).items())


def all_figures(document):
    """Every plot that a document may have."""
    for stem, models in ladders(document).items():
        yield plots.overview(document, stem, models)
        for mode in document.modes:
            yield plots.by_hidden_size(document, stem, models, mode)
    for mode in document.modes:
        for draw in (plots.ratios, plots.percentiles, plots.error_by_speed):
            yield draw(document, document.models[-1], mode)


def rows_of(document, mode):
    return {(r.contender, r.model): r for r in document.rows if r.mode == mode.name and r.ns}


def test_the_lines_over_the_hidden_size_are_the_medians():
    document = sample.ladder()
    (stem, models) = ITEMS[0]
    for mode in document.modes:
        (axes,) = plots.by_hidden_size(document, stem, models, mode).axes
        drawn = {tuple(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 4}
        rows = rows_of(document, mode)
        names = {name for name, _ in rows}
        assert drawn == {
            tuple(rows[name, model.name].ns.value for model in models) for name in names
        }
        assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "32", "128", "512"]


def test_both_panels_of_the_overview_have_one_scale():
    (stem, models) = ITEMS[0]
    step, sequence = plots.overview(sample.ladder(), stem, models).axes
    assert step.get_ylim() == sequence.get_ylim()
    assert [len(axes.lines) for axes in (step, sequence)] == [14, 8]


def test_a_curve_is_the_order_statistics_of_the_calls():
    calls = np.sort(np.random.default_rng(0).lognormal(8, 1, 5000).astype(np.int64))
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(1, 10**10, 3)
    for value in calls.tolist():
        histogram.record_value(value)
    x, y = plots.curve(histogram.encode().decode("ascii"))
    assert (x[0], x[-1]) == pytest.approx((1, 5000))
    # The smallest call that a share 1 - 1/x of the calls does not exceed.
    rank = np.clip(np.ceil((1 - 1 / x) * 5000 - 1e-9), 1, 5000).astype(int)
    exact = calls[rank - 1]
    exact[-1] = calls[-1]
    np.testing.assert_allclose(y, exact, rtol=1.1e-3)
    assert np.all(np.diff(y) >= 0)


def test_a_curve_of_one_call_is_flat():
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(1, 10**10, 3)
    histogram.record_value(777)
    x, y = plots.curve(histogram.encode().decode("ascii"))
    assert set(y.tolist()) == {777}
    assert set(x.tolist()) == {1}


def test_percentile_curves_end_at_the_greatest_call_and_show_the_period():
    document = sample.audio()
    (axes,) = plots.percentiles(document, document.models[0], document.modes[0]).axes
    rows = rows_of(document, document.modes[0]).values()
    ends = {float(line.get_ydata()[-1]) for line in axes.lines if len(line.get_xdata()) > 2}
    assert sorted(ends) == pytest.approx(sorted(row.latency.max_ns for row in rows), rel=1.1e-3)
    assert "a call every 1.33 ms" in [text.get_text() for text in axes.texts]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "0 %",
        "50 %",
        "90 %",
        "99 %",
        "99.9 %",
    ]


def test_errors_are_points_and_coarse_weights_are_hollow_above_the_bound():
    document = sample.ladder()
    (axes,) = plots.error_by_speed(document, document.models[3], document.modes[0]).axes
    rows = [row for row in rows_of(document, document.modes[0]).values() if row.model[-3:] == "512"]
    drawn = {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_fillstyle()
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }
    assert set(drawn) == {(row.ns.value, row.error) for row in rows if row.error}
    hollow = {point for point, fill in drawn.items() if fill == "none"}
    assert hollow == {(r.ns.value, r.error) for r in rows if r.contender == sample.INT8}
    assert min(y for _, y in hollow) > 1e-6
    assert any("weights of fewer bits" in text.get_text() for text in axes.texts)


def test_an_error_of_nothing_stands_on_the_edge():
    document = sample.audio()
    rows = tuple(
        row.model_copy(update={"error": 0.0}) if row.contender == "OpenVINO" else row
        for row in document.rows
    )
    exact = document.model_copy(update={"rows": rows})
    (axes,) = plots.error_by_speed(exact, exact.models[0], exact.modes[0]).axes
    assert min(line.get_ydata()[0] for line in axes.lines) == axes.get_ylim()[0]


def test_bars_run_from_one_to_the_ratio_and_losses_run_left():
    document = sample.audio()
    (axes,) = plots.ratios(document, document.models[0], document.modes[1]).axes
    rows = sorted(rows_of(document, document.modes[1]).values(), key=lambda row: row.ns.value)
    bars = axes.patches
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        row.contender.replace("reference", "reference (float64)") for row in rows
    ]
    ends = [bar.get_x() + bar.get_width() for bar in bars]
    assert ends == pytest.approx([row.ratio.value for row in rows])
    assert {bar.get_x() for bar in bars} == {1}
    intervals = [tuple(line.get_xdata()) for line in axes.lines][: len(rows)]
    assert intervals == [(row.ratio.low, row.ratio.high) for row in rows]
    assert [t.get_text() for t in axes.texts if t.get_fontweight() == "bold"][1].startswith("1.00")
    lost = next(row for row in rows if row.contender == "C++ by hand")
    assert axes.texts[rows.index(lost)].get_fontweight() == "bold"


@pytest.mark.parametrize("document", [sample.ladder(), sample.audio()], ids=["ladder", "audio"])
def test_no_name_overlaps_another_or_leaves_the_picture(document):
    for figure in all_figures(document):
        canvas = FigureCanvasAgg(figure)
        with plot_style.drawing():
            canvas.draw()
        renderer, page = canvas.get_renderer(), figure.bbox.padded(1)
        texts = [*figure.texts]
        for axes in figure.axes:
            texts += [*axes.texts, axes.title, axes._left_title]
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                texts += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
                texts.append(axis.label)
        boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text()]
        for words, box in boxes:
            assert page.contains(*box.min), words
            assert page.contains(*box.max), words
        for (one, first), (other, second) in combinations(boxes, 2):
            assert not first.padded(-0.5).overlaps(second.padded(-0.5)), (one, other)


def test_names_are_spread_in_order_within_the_plot():
    places = [0.99, 0.5, 0.51, 0.505, 1.2, 0.0, -0.3]
    found = plot_style.spread(places, 0.05)
    order = sorted(range(len(places)), key=lambda k: places[k])
    moved = [found[k] for k in order]
    assert all(b - a >= 0.05 - 1e-12 for a, b in pairwise(moved))
    assert min(moved) >= 0
    assert max(moved) <= 1
    # Three that touch keep their mean, and one that stands alone its place.
    assert np.mean([found[k] for k in (1, 2, 3)]) == pytest.approx(np.mean([0.5, 0.51, 0.505]))
    assert plot_style.spread([0.2, 0.8], 0.05) == [0.2, 0.8]
    assert plot_style.spread([], 0.05) == []


def test_a_contender_looks_the_same_everywhere_and_like_no_other():
    ladder, audio = (plot_style.styles(d) for d in (sample.ladder(), sample.audio()))
    assert all(ladder[name] == audio[name] for name in sample.STEP)
    looks = {
        (style.family.marker, style.fill, str(style.line))
        for name, style in ladder.items()
        # Ours in another mode, which no plot shows beside ours in this one.
        if name != sample.OURS_RUN
    }
    assert len(looks) == len(ladder) - 1
    assert ladder[sample.OURS] == ladder[sample.OURS_RUN]
    assert ladder[sample.INT8].family is ladder["ONNX Runtime"].family
    families = [plot_style.OURS, plot_style.FLOOR, *plot_style.FAMILIES, *plot_style.SPARE]
    assert len({family.marker for family in families}) == len(families)


def test_more_unforeseen_families_than_spare_colours_still_have_one():
    document = sample.audio()
    rows = document.rows
    for k in range(6):
        rows += (rows[1].model_copy(update={"contender": f"new{k} runtime"}),)
    found = plot_style.styles(document.model_copy(update={"rows": rows}))
    assert found["new0 runtime"].family in plot_style.SPARE
    assert found["new0 runtime"].family is found["new4 runtime"].family


def linear(colour):
    value = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """Of WCAG 2: 21 between black and white."""
    low, high = sorted(float(np.dot([0.2126, 0.7152, 0.0722], linear(c))) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


# Machado, Oliveira and Fernandes (2009), severity 1: what who lacks one kind of cone sees.
BLIND = (
    np.eye(3),
    np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
)
XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
) / np.array([[0.9505], [1.0], [1.089]])


def lab(light):
    """CIELAB of linear light."""
    t = XYZ @ np.clip(light, 0, 1)
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_known_families_are_told_apart_by_every_eye_and_seen_on_their_paper(theme):
    known = [plot_style.OURS, plot_style.FLOOR, *plot_style.FAMILIES]
    paper = getattr(plot_style.PAPER, theme)
    for family in (*known, *plot_style.SPARE):
        assert contrast(getattr(family.colour, theme), paper) >= 3, family.colour.name
    for colour in (plot_style.INK, plot_style.SOFT):
        assert contrast(getattr(colour, theme), paper) >= 4.5
    for matrix in BLIND:
        seen = [lab(matrix @ linear(getattr(family.colour, theme))) for family in known]
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) >= 16


def svg_of(document, **more):
    figure = plots.ratios(document, document.models[0], document.modes[1])
    return plot_style.svg(figure, "ratios <&>", **more)


def test_svg_is_text_without_a_date_and_the_same_in_every_process():
    text = svg_of(sample.audio())
    root = ET.fromstring(text)
    words = {"".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("}text")}
    assert {"C++ by hand", "Rust_crate", "fastlstm push", "times fastlstm push"} <= words
    assert root.attrib["aria-label"] == "ratios <&>"
    assert "metadata" not in text
    assert not re.search(r"20\d\d-\d\d-\d\d", text)
    script = (
        "import sys, hashlib; sys.path[:0] = sys.argv[1:]\n"
        "import test_report_plots as t\n"
        "print(hashlib.sha256(t.svg_of(t.sample.audio()).encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(HERE), str(HERE.parent.parent)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(text.encode()).hexdigest()


def test_themed_svg_takes_every_colour_from_the_page():
    text = svg_of(sample.audio(), key="p1", themed=True)
    used = set(re.findall(r"#[0-9a-f]{6}\b", text)) - {"#000000", "#ffffff"}
    assert used == set()
    assert {"var(--ink)", "var(--ours)", "var(--onnx)"} <= set(re.findall(r"var\([^)]*\)", text))
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert all(name.startswith("p1-") for name in ids)
    for name in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text):
        assert "".join(name) in ids


def test_a_users_settings_of_matplotlib_change_nothing():
    import matplotlib

    before = svg_of(sample.audio())
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert svg_of(sample.audio()) == before


def test_names_are_never_read_as_mathematics_or_markup():
    name = "a $x_1$ & <b> %s"
    text = svg_of(sample.renamed(sample.audio(), "Rust_crate", name))
    words = {"".join(e.itertext()).strip() for e in ET.fromstring(text).iter()}
    assert name in words
