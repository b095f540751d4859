"""The roofline: times come from the clock, and the floor is the fastest way to read forward."""

import json
import sys

import numpy as np
import pytest

from fastlstm.bench.floor import roofline
from fastlstm.bench.floor.load_only import BACK_AND_FORTH, FORWARD
from fastlstm.bench.goals.timing import Times
from fastlstm.bench.models import CELLS, plain_model


@pytest.mark.parametrize("cell", CELLS)
def test_each_row_is_of_one_size(cell, growing_clock):
    result = roofline.measure_roofline(
        (4, 20), cell, rounds=1, least_steps=10, most_steps=30, clock=growing_clock
    )
    assert [row.hidden for row in result.rows] == [4, 20]
    for row in result.rows:
        model = plain_model(cell, row.hidden, outputs=None)
        assert row.weights_bytes == roofline.weights_of(model).nbytes
        assert row.weights_bytes >= 4 * model.layers[0].weight_hh_l0.size
        assert row.steps == 30
        assert row.load_ns == row.ways_ns[row.way] == min(row.ways_ns[w.name] for w in FORWARD)
        assert row.ratio == pytest.approx(row.step_ns / row.load_ns)
        # One call a round, of some 1,000 to 1,100 ns on this clock, over 30 steps.
        assert 1000 / 30 < row.step_ns < 1100 / 30
        assert set(row.ways_ns) == {way.name for way in (*FORWARD, BACK_AND_FORTH)}
        assert row.error < 1e-6
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["schema"] == "fastlstm-roofline-1"
    assert [row["ratio"] for row in document["rows"]] == [row.ratio for row in result.rows]


def test_small_layers_take_more_steps():
    weights = np.zeros(1024, np.float32)
    assert roofline.long_enough(weights, 10, 100_000) == 2**28 // 4096
    assert roofline.long_enough(weights, 10, 500) == 500
    assert roofline.long_enough(weights, 10**6, 10**7) == 10**6


def test_turning_back_is_no_floor():
    times = {way.name: Times([100.0 + k]) for k, way in enumerate(FORWARD)}
    times[BACK_AND_FORTH.name] = Times([1.0])
    assert roofline.floor(times) == (FORWARD[0].name, Times([100.0]))


def test_a_loader_reads_the_weights_once_a_step(monkeypatch):
    read = []
    monkeypatch.setattr(roofline, "load_only", lambda *given: read.append(given))
    weights = np.zeros(16, np.float32)
    for contender in roofline.loaders(weights):
        contender.call(np.zeros((7, 1)))
    assert [way for way, _, _ in read] == [*FORWARD, BACK_AND_FORTH]
    assert all(given is weights and passes == 7 for _, given, passes in read)


def test_a_wrong_layer_is_not_timed(monkeypatch):
    # Nothing is that near the reference.
    monkeypatch.setattr(sys.modules["fastlstm.verify"], "FLOOR", -1.0)
    with pytest.raises(ArithmeticError, match="stream, by run: refused: differs from the refer"):
        roofline.measure_roofline((4,), rounds=1)


def test_the_picture_shows_both_times(tmp_path, growing_clock):
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'fastlstm[train]'")
    result = roofline.measure_roofline(
        (4, 20), rounds=1, least_steps=1, most_steps=2, clock=growing_clock
    )
    (axes,) = roofline.figure_of(result).axes
    steps, loads = (line.get_xydata().tolist() for line in axes.lines)
    assert steps == [[row.hidden, row.step_ns] for row in result.rows]
    assert loads == [[row.hidden, row.load_ns] for row in result.rows]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    roofline.draw(result, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
