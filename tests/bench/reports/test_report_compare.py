"""Two results: what moved beyond both intervals, and nothing else."""

import io

import numpy as np
import pytest

pytest.importorskip("rich", reason="rich is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("hdrh", reason="hdrhistogram is not installed")

from report_reading import markdown_tables, ns_of, number
from rich.console import Console

import sample_document as sample
from fastlstm.bench.reports import comparison
from fastlstm.bench.reports.compare import compare
from fastlstm.bench.reports.document import Estimate

SIZES = (8, 32)


def changed(document, wanted, **update):
    """The document with other figures in the rows that `wanted` picks."""
    rows = tuple(row.model_copy(update=update) if wanted(row) else row for row in document.rows)
    return document.model_copy(update={"rows": rows})


def of(contender, model="LSTM 1x8", mode="step"):
    return lambda row: (row.contender, row.model, row.mode) == (contender, model, mode)


def ratio(value, low, high):
    return Estimate(value=value, low=low, high=high)


def shown(found):
    text = io.StringIO()
    Console(file=text, width=100).print(comparison.to_terminal(found))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    return lines


def test_a_document_and_itself_have_not_moved():
    document = sample.ladder(SIZES)
    found = compare(document, document)
    timed = [row for row in document.rows if row.ns]
    assert len(found.times) == len(timed)
    assert len(found.ratios) == len(timed) - 4  # ours, on two models in two modes
    assert found.moved == ()
    assert found.drift == 1
    assert (found.only_a, found.only_b) == ((), ())
    assert all(warning.startswith("noise in ") for warning in found.warnings)


@pytest.mark.parametrize(
    ("a", "b", "moved"),
    [
        ((2.0, 1.9, 2.1), (2.3, 2.2, 2.4), True),
        ((2.0, 1.9, 2.1), (1.7, 1.6, 1.8), True),
        ((2.0, 1.9, 2.1), (2.2, 2.1, 2.3), False),
        ((2.0, 1.9, 2.1), (2.2, 2.0, 2.4), False),
        ((2.0, 1.9, 2.1), (2.0, 1.5, 2.5), False),
    ],
)
def test_intervals_that_do_not_overlap_have_moved_and_touching_ones_have_not(a, b, moved):
    document = sample.ladder(SIZES)
    first = changed(document, of("OpenVINO"), ratio=ratio(*a))
    second = changed(document, of("OpenVINO"), ratio=ratio(*b))
    found = compare(first, second)
    (move,) = (
        m
        for m in found.ratios
        if (m.contender, m.model, m.mode) == ("OpenVINO", "LSTM 1x8", "step")
    )
    assert move.moved is moved
    assert move.change == pytest.approx(b[0] / a[0])
    assert [m for m in found.moved if m.what == "ratio"] == [move] * moved


def test_the_greatest_change_stands_first_up_or_down():
    document = sample.ladder(SIZES)
    other = changed(document, of("OpenVINO"), ratio=ratio(900.0, 890.0, 910.0))
    other = changed(other, of("AOTInductor"), ratio=ratio(1.0, 0.99, 1.01))
    found = compare(document, other)
    assert [move.contender for move in found.ratios[:2]] == ["AOTInductor", "OpenVINO"]
    assert [move.moved for move in found.ratios[:3]] == [True, True, False]


def test_a_slower_machine_moves_times_and_no_ratio():
    document = sample.ladder(SIZES)
    rows = tuple(
        row.model_copy(
            update={"ns": ratio(*(1.5 * v for v in (row.ns.value, row.ns.low, row.ns.high)))}
        )
        if row.ns
        else row
        for row in document.rows
    )
    found = compare(document, document.model_copy(update={"rows": rows}))
    assert found.drift == pytest.approx(1.5)
    assert {move.what for move in found.moved} == {"time"}
    assert len(found.moved) == len(found.times)
    assert "changed by +50 %" in " ".join(shown(found))


def test_ours_slower_moves_the_ratios_of_all_others():
    found = compare(sample.ladder(SIZES), sample.ladder(SIZES, 1.2))
    assert all(move.moved for move in found.ratios)
    assert {m.contender for m in found.moved if m.what == "time"} == {
        sample.OURS,
        sample.OURS_RUN,
    }
    assert found.drift == 1


def test_how_many_move_by_chance():
    document = sample.ladder(SIZES)
    found = compare(document, document)
    lines = comparison.summary(found)
    # Cold and warm start of ours, warm start of ONNX Runtime.
    counts = {"Times ours": len(found.ratios), "Times": len(found.times),
              "From the start of a process": 3}  # fmt: skip
    for line, (title, count) in zip(lines, counts.items(), strict=False):
        by_chance = f"{found.chance * count:.1f}"
        assert line == (
            f"{title}: {count} have an interval in both; 0 moved, where by chance alone about "
            f"{by_chance} would have."
        )
    # By simulation: two estimates of the same value, each with its 95 % interval.
    a, b = np.random.default_rng(0).standard_normal((2, 2_000_000))
    apart = np.mean(np.abs(a - b) > 2 * 1.959964)
    assert found.chance == pytest.approx(apart, rel=0.03)
    wide = compare(*[document.model_copy(update={"confidence": 0.99})] * 2)
    assert np.mean(np.abs(a - b) > 2 * 2.575829) == pytest.approx(wide.chance, rel=0.15)


def test_rows_in_one_only_and_refusals_are_told():
    document = sample.ladder(SIZES)
    fewer = document.model_copy(
        update={"rows": tuple(row for row in document.rows if row.contender != "tinygrad")}
    )
    refused = changed(
        fewer, of("OpenVINO"), ns=None, ratio=None, latency=None, note="refused: <wrong>"
    )
    found = compare(document, refused)
    assert found.only_a == (
        "OpenVINO on LSTM 1x8, step; in the other not timed: refused: <wrong>",
        "tinygrad on LSTM 1x8, step",
        "tinygrad on LSTM 1x32, step",
    )
    assert compare(refused, document).only_b == found.only_a
    assert "Only in A: tinygrad on LSTM 1x32, step" in shown(found)
    text = comparison.to_markdown(found)
    assert (
        "- Only in A: OpenVINO on LSTM 1x8, step; in the other not timed: refused: \\<wrong>"
        in text
    )


def test_another_machine_version_or_setting_is_warned_about():
    document = sample.ladder(SIZES)
    machine = {
        **document.machine,
        "processor": "Other CPU",
        "load_average": 7.0,
        "versions": {**document.machine["versions"], "numpy": "2.5.0"},
    }
    contenders = tuple(
        one.model_copy(update={"version": "2.0"}) if one.name == "OpenVINO" else one
        for one in document.contenders
    )
    other = document.model_copy(
        update={
            "machine": machine,
            "contenders": contenders,
            "settings": {**document.settings, "seed": 1},
            "preset": "quick",
        }
    )
    told = [one for one in compare(document, other).warnings if not one.startswith("noise")]
    assert told == [
        "machine, processor: A Some CPU 9000, B Other CPU",
        "machine, versions, numpy: A 2.4.6, B 2.5.0",
        "settings, seed: A 0, B 1",
        "preset: A ladder, B quick",
        "OpenVINO, version: A 2025.3, B 2.0",
    ]
    assert shown(compare(document, other))[0] == f"Warning: {told[0]}"


def test_ratios_to_another_contender_are_not_compared():
    document = sample.ladder(SIZES)
    modes = (document.modes[0].model_copy(update={"ours": "fastlstm step"}), document.modes[1])
    found = compare(document, document.model_copy(update={"modes": modes}))
    assert {move.mode for move in found.ratios} == {"sequence"}
    assert "step, ours: A fastlstm push, B fastlstm step" in found.warnings


def test_starts_are_compared_and_what_has_no_interval_is_not_judged():
    document = sample.ladder(SIZES)
    starts = tuple(
        start.model_copy(update={"warm_s": ratio(0.5, 0.49, 0.51), "allocations_per_step": 2.0})
        if start.contender == sample.OURS
        else start
        for start in document.starts
    )
    found = compare(document, document.model_copy(update={"starts": starts}))
    ours = {move.what: move for move in found.starts if move.contender == sample.OURS}
    assert ours["warm start"].moved is True
    assert ours["cold start"].moved is False
    assert ours["allocations a step"].moved is None
    assert ours["allocations a step"].change == float("inf")
    assert ours["file"].change == 1
    lines = [" ".join(line.split()) for line in shown(found)]
    assert any(
        line.startswith(
            "fastlstm push LSTM 1x32 warm start 291 ms (288-295 ms) 500 ms (490-510 ms)"
        )
        for line in lines
    )
    assert any("allocations a 0 2 from 0 no interval" in line for line in lines)


def test_markdown_holds_every_figure():
    a, b = sample.ladder(SIZES), sample.ladder(SIZES, 1.2)
    found = compare(a, b)
    tables = markdown_tables(comparison.to_markdown(found))
    ratios = tables["Times ours; where a ratio falls we lose ground"][1:]
    for line, move in zip(ratios, found.ratios, strict=True):
        assert line[:3] == [move.contender, move.model, move.mode]
        assert number(line[3].split()[0]) == pytest.approx(move.a.value, rel=6e-3, abs=0.06)
        assert number(line[4].split()[0]) == pytest.approx(move.b.value, rel=6e-3, abs=0.06)
        assert line[5] == "**-17 %**"
    times = tables["Times"][1:]
    assert len(times) == len(found.times)
    for line, move in zip(times, found.times, strict=True):
        assert ns_of(line[3].partition(" (")[0]) == pytest.approx(move.a.value, rel=6e-3)
        assert line[6] == ("**moved**" if move.moved else "within noise")
    assert comparison.to_markdown(compare(a, b)) == comparison.to_markdown(found)
