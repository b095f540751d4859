"""The matrix finds what is wrong in a runtime, names what it refuses, and goes on."""

import json
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")

import runtime_fakes
from fastlstm import reference
from fastlstm.errors import ExportError, UnsupportedError
from fastlstm.export import matrix as matrices
from fastlstm.export import onnx_graph
from fastlstm.export.cells import CELLS
from fastlstm.export.matrix import (
    BATCH,
    CUTS,
    LENGTHS,
    PIECES,
    SEQUENCE,
    STEP,
    STEPS,
    VARIABLE,
    Cell,
    Check,
    matrix,
)
from fastlstm.model import Bidirectional
from fastlstm.verify import PART, YARDSTICK_STEPS
from runtime_fakes import MODEL

EVERY = {STEP, SEQUENCE, PIECES, BATCH, VARIABLE}


def cell_of(load, model=MODEL):
    """The only cell of a matrix of one model and one fake."""
    found = matrix({"m": lambda: model}, [runtime_fakes.runtime(load)])
    (cell,) = found.cells
    assert (cell.model, cell.runtime) == ("m", "fake")
    return cell, found


def with_verdict(cell, verdict):
    return {check.name for check in cell.checks if check.verdict == verdict}


def test_a_right_runtime_passes_every_check_within_its_bounds_and_is_closed():
    runtime_fakes.Fake.opened.clear()
    cell, found = cell_of(runtime_fakes.Fake)
    assert cell.verdict == "ok"
    assert found.ok
    assert with_verdict(cell, "ok") == EVERY
    for check in cell.checks:
        assert 0 < check.max_abs_error <= check.bound < 2e-6
        assert 0 < check.state_error <= check.state_bound < 2e-6
    steps = {check.name: check.steps for check in cell.checks}
    single = dict.fromkeys((STEP, SEQUENCE, PIECES), STEPS)
    assert steps == {**single, BATCH: 7 * STEPS, VARIABLE: sum(LENGTHS)}
    assert {check.bound for check in cell.checks} == {found.bounds["m"]}
    assert cell.error == max(check.max_abs_error for check in cell.checks)
    # One graph without lengths and one with, each loaded once.
    assert len(runtime_fakes.Fake.opened) == 2
    assert all(fake.closed for fake in runtime_fakes.Fake.opened)


@pytest.mark.parametrize(
    ("load", "wrong"),
    [
        (runtime_fakes.SwapsStates, EVERY),
        (runtime_fakes.DropsState, EVERY),
        (runtime_fakes.RunsTheFirstOnly, {BATCH, VARIABLE}),
        (runtime_fakes.IgnoresLengths, {VARIABLE}),
        (runtime_fakes.SaysNothing, EVERY),
        (runtime_fakes.CutsShort, EVERY),
    ],
)
def test_a_fault_is_found_by_the_checks_that_can_show_it(load, wrong):
    cell, found = cell_of(load)
    assert cell.verdict == "wrong"
    assert with_verdict(cell, "wrong") == wrong
    assert with_verdict(cell, "ok") == EVERY - wrong
    assert not found.ok
    assert found.faults == (cell,)
    assert not cell.error <= 1e-3


def test_what_the_runtime_refuses_is_quoted_on_one_line_and_the_rest_goes_on():
    cell, found = cell_of(runtime_fakes.RefusesBatches)
    assert cell.verdict == "partly"
    assert with_verdict(cell, "refused") == {BATCH, VARIABLE}
    assert with_verdict(cell, "ok") == {STEP, SEQUENCE, PIECES}
    notes = {check.note for check in cell.checks if check.verdict == "refused"}
    assert notes == {"fake: a batch of 1 is all I take"}
    assert found.ok


def test_a_refused_graph_is_not_loaded_again_for_each_check():
    loads = []

    def load(data):
        loads.append(data)
        raise UnsupportedError("fake: no such op: LSTM")

    cell, found = cell_of(load)
    assert cell.verdict == "refused"
    assert {check.note for check in cell.checks} == {"fake: no such op: LSTM"}
    assert len(loads) == 2  # with lengths and without
    assert not found.ok  # nothing could be checked
    assert cell.error is None


def test_whatever_else_a_runtime_raises_is_a_failure_with_its_words():
    cell, found = cell_of(runtime_fakes.Breaks)
    assert cell.verdict == "failed"
    assert {check.note for check in cell.checks} == {"RuntimeError: out of order"}
    assert not found.ok


def test_a_missing_runtime_is_a_cell_that_says_what_to_install():
    def load(data):
        raise AssertionError("it is not there")

    lacks = "fake not installed: pip install 'fastlstm[runtimes]'"
    lacking = runtime_fakes.runtime(load, lacks)
    found = matrix({"m": lambda: MODEL}, [lacking, runtime_fakes.runtime(runtime_fakes.Fake)])
    missing, other = found.cells
    assert (missing.verdict, missing.missing, missing.checks) == ("missing", lacks, ())
    assert other.verdict == "ok"
    assert [(about.version, about.missing) for about in found.runtimes] == [
        ("", lacks),
        ("1.2", ""),
    ]
    assert found.ok
    assert not matrix({"m": lambda: MODEL}, [lacking]).ok


def test_a_bidirectional_model_takes_whole_sequences_only():
    model = CELLS["BiGRU"]()
    assert isinstance(model.layers[0], Bidirectional)
    cell, _ = cell_of(runtime_fakes.Breaks, model)
    assert {check.name for check in cell.checks} == {SEQUENCE, BATCH, VARIABLE}


def test_a_model_that_cannot_be_exported_is_refused_on_every_runtime(monkeypatch):
    def build(model, **options):
        raise UnsupportedError("ONNX: layer 0: no such thing")

    monkeypatch.setattr(onnx_graph, "build", build)
    cell, _ = cell_of(runtime_fakes.Fake)
    assert cell.verdict == "refused"
    assert {check.note for check in cell.checks} == {"ONNX: layer 0: no such thing"}


def test_a_runtime_that_cannot_even_say_its_version_fails_and_is_listed():
    def version():
        raise ExportError("fake: its process ended")

    broken = runtime_fakes.Runtime("fake", runtime_fakes.Breaks, lambda: "", version)
    found = matrix({"m": lambda: MODEL}, [broken])
    assert found.runtimes[0].version == "unknown"
    assert found.cells[0].verdict == "failed"


def test_the_plain_data_of_a_matrix_is_json_with_none_for_what_was_not_measured():
    runtimes = [runtime_fakes.runtime(load) for load in (runtime_fakes.Fake, runtime_fakes.refuses)]
    told = []
    found = matrix({"m": lambda: MODEL}, runtimes, progress=told.append)
    assert told == ["1 of 1, m on fake"] * 2
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    right, refused = data["cells"]
    assert (right["verdict"], refused["verdict"]) == ("ok", "refused")
    assert right["checks"][0]["max_abs_error"] == found.cells[0].checks[0].max_abs_error
    assert refused["checks"][0]["max_abs_error"] is None
    assert data["bounds"]["m"] == found.bounds["m"]
    assert data["runtimes"][0]["version"] == "1.2"


def test_the_greatest_error_speaks_for_a_cell_and_the_worst_of_a_wrong_one():
    fine = Check("a", "ok", 10, 1e-7, 1e-6, 1e-9, 1e-6)
    more = Check("b", "ok", 10, 2e-7, 1e-6, 9e-7, 1e-6)
    astray = Check("c", "wrong", 10, 3e-7, 1e-6, 0.5, 1e-6)
    lost = Check("d", "wrong", 10, float("nan"), 1e-6, 0.5, 1e-6)
    assert Cell("m", "r", (fine, more)).error == 2e-7
    assert Cell("m", "r", (fine, astray, more)).error == 0.5
    assert np.isnan(Cell("m", "r", (fine, astray, lost, more)).error)


def test_the_bound_is_the_worst_of_plain_float32_over_every_stream():
    """Of a long one too: on a few steps plain float32 may be exact, and no runtime would do."""
    cell, found = cell_of(runtime_fakes.Fake)
    long = reference.check_input(MODEL, YARDSTICK_STEPS)
    inputs = [long, *(long[k : k + PART] for k in range(0, len(long), PART))]
    for seed, length in zip(matrices.SEEDS, LENGTHS, strict=True):
        x = reference.check_input(MODEL, STEPS, seed)
        inputs += [x, x[:length]]
    outputs, states = [], []
    for x in inputs:
        exact, plain = (reference.run_with_state(MODEL, x, t) for t in (np.float64, np.float32))
        outputs.append(np.abs(plain.output - exact.output).max())
        states += [np.abs(a - b).max() for a, b in zip(plain.state, exact.state, strict=True)]
    assert found.bounds["m"] == pytest.approx(2 * max(outputs) + 1e-6, rel=1e-9)
    (state_bound,) = {check.state_bound for check in cell.checks}
    assert state_bound == pytest.approx(2 * max(states) + 1e-6, rel=1e-9)


def test_the_streams_are_cut_and_of_lengths_that_can_show_a_fault():
    assert CUTS[0] == 0
    assert CUTS[-1] == max(LENGTHS) == STEPS
    assert {1, 5} < {b - a for a, b in pairwise(CUTS)}
    assert min(LENGTHS) == 1
    assert len(set(LENGTHS)) == len(LENGTHS) == len(matrices.SEEDS)


def test_every_cell_is_a_model_of_its_own_and_the_same_each_time():
    seen = {}
    for name, make in CELLS.items():
        data = onnx_graph.build(make()).SerializeToString()
        assert data == onnx_graph.build(make()).SerializeToString(), name
        assert data not in seen, f"{name} and {seen.get(data)} are the same"
        seen[data] = name
