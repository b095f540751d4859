"""Start-up: which processes are started, in which state of the caches, and what becomes of them."""

from pathlib import Path

import numpy as np
import pytest

import cases
from fastlstm import errors, model_file
from fastlstm.bench.startup import measure
from fastlstm.bench.startup.measure import measure_starts
from fastlstm.bench.startup.processes import Answer
from fastlstm.bench.startup.program_list import PROGRAMS, Program
from fastlstm.bench.startup.shipped_files import FORMATS, ShippedFiles
from fastlstm.model import Affine, Model
from fastlstm.reference import check_input, run

MODEL = Model((Affine(np.array([2, -3], np.float32), np.array([0.5, 1], np.float32)),))
RIGHT = """
import safetensors.numpy

def load(path):
    tensors = safetensors.numpy.load_file(path)
    scale, shift = tensors["layers.0.scale"], tensors["layers.0.shift"]
    def step(x):
        return scale * x + shift
    return step
"""
# Right at first, as a timed start sees it, and wrong from the fifth step on.
WRONG = RIGHT.replace("def step", "steps = []\n    def step").replace(
    "return scale * x + shift",
    "steps.append(x)\n        return scale * x + shift + (0.25 if len(steps) > 4 else 0)",
)
# Writes down whether it found what the run before left, and leaves it.
CACHING = """
import os
from pathlib import Path
kept = Path(os.environ["THE_CACHE"]) / "kept"
with open(os.environ["THE_LOG"], "a") as log:
    print("warm" if kept.exists() else "cold", file=log)
kept.parent.mkdir(exist_ok=True)
kept.touch()
"""


@pytest.fixture
def program(tmp_path):
    """A program of this source that ships a .safetensors file."""

    def program(name, source=RIGHT, **options):
        script = tmp_path / f"{name}.py"
        script.write_text(source)
        return Program(name, script, "safetensors", ("safetensors",), **options)

    return program


@pytest.fixture
def uncounted(monkeypatch):
    monkeypatch.setattr(measure, "build_counter", lambda folder: None)


def one(found):
    (start,) = found
    return start


def test_a_start_holds_the_times_the_sizes_and_the_error(program, uncounted, growing_clock):
    words = []
    start = one(
        measure_starts(
            {"affine": MODEL},
            contenders=[program("right")],
            cold=2,
            warm=3,
            clock=growing_clock,
            progress=words.append,
        )
    )
    assert (start.model, start.contender, start.note) == ("affine", "right", "")
    # The first process is the check; the n-th takes 1000 + 2 n ns of this clock.
    assert start.warm_s.low == 1004 / 1e9
    assert start.warm_s.value == 1006 / 1e9
    assert start.warm_s.high == 1008 / 1e9
    assert start.cold_s is None
    assert start.allocations_per_step is None
    assert start.file_bytes == len(model_file.to_bytes(MODEL))
    assert start.library_bytes > 10_000_000  # NumPy; test_installed_size.py counts
    x = check_input(MODEL, 300, seed=1)
    single = np.float32([2, -3]) * x + np.float32([0.5, 1])
    assert start.error == np.abs(single - run(MODEL, x)).max()
    assert words == [
        "affine: checking a program with right",
        *(f"affine: warm start {k} with right" for k in (1, 2, 3)),
    ]


def test_cold_starts_find_empty_caches_and_warm_ones_full(
    program, uncounted, tmp_path, monkeypatch
):
    log = tmp_path / "log"
    monkeypatch.setenv("THE_LOG", str(log))
    words = []
    start = one(
        measure_starts(
            {"a": MODEL},
            contenders=[program("keeps", CACHING + RIGHT, cache="THE_CACHE")],
            cold=2,
            warm=3,
            progress=words.append,
        )
    )
    assert start.note == ""
    assert start.cold_s.value > 0
    # One that fills the cache, one that is checked, and then as was announced.
    announced = [line.split()[1] for line in words[1:]]
    assert sorted(announced) == ["cold"] * 2 + ["warm"] * 3
    assert log.read_text().split() == ["cold", "warm", *announced]


def test_the_order_is_shuffled_within_rounds_and_the_same_again(program, uncounted, monkeypatch):
    figures = {
        "modules": [],
        "libraries": [],
        "outputs": run(MODEL, check_input(MODEL, 300, seed=1)),
        "first_call_ns": 5,
        "steps_ns": 3,
        "resident_bytes": 7,
    }
    answer = Answer(1.0, figures["outputs"][0], figures)
    monkeypatch.setattr(measure, "start", lambda *arguments, **options: answer)
    programs = [program(name) for name in "abcd"]

    def turns(seed):
        words = []
        measure_starts(
            {"m": MODEL}, contenders=programs, cold=0, warm=2, seed=seed, progress=words.append
        )
        return [line.split()[-1] for line in words[4:]]

    first = turns(0)
    assert sorted(first[:4]) == sorted(first[4:]) == list("abcd")
    assert first == turns(0)
    assert first != turns(1)


def test_a_program_that_is_wrong_is_refused_and_gets_no_times(program, uncounted):
    wrong, right = measure_starts(
        {"m": MODEL},
        contenders=[program("wrong", WRONG), program("right")],
        cold=1,
        warm=1,
    )
    assert wrong.error == pytest.approx(0.25, abs=1e-5)
    assert wrong.note.startswith("refused: differs from the reference by 2.50e-01, allowed ")
    times = (wrong.warm_s, wrong.first_call_ns, wrong.steps_ns, wrong.resident_bytes)
    assert times == (None,) * 4
    assert wrong.file_bytes == right.file_bytes
    assert right.note == ""
    assert right.warm_s.value > 0
    assert right.steps_ns > 0


def test_a_start_that_goes_wrong_after_the_check_takes_all_times_back(
    program, uncounted, tmp_path, monkeypatch
):
    count = tmp_path / "count"
    monkeypatch.setenv("THE_COUNT", str(count))
    source = """
import os
with open(os.environ["THE_COUNT"], "a+") as file:
    file.write("x")
    file.seek(0)
    late = len(file.read()) > 3
""" + RIGHT.replace("+ shift", "+ shift + (1 if late else 0)")
    start = one(measure_starts({"m": MODEL}, contenders=[program("p", source)], cold=0, warm=9))
    assert start.note.startswith("refused: differs from the reference by 1.00e+00")
    assert (start.warm_s, start.first_call_ns, start.steps_ns) == (None, None, None)
    assert len(count.read_text()) == 4  # and no further process


@pytest.mark.parametrize(
    ("source", "note"),
    [
        (RIGHT.replace("scale * x", "scale[:1] * x[:1]").replace("+ shift", "+ shift[:1]"),
         "refused: expected outputs (300, 2), found (300, 1)"),
        (RIGHT.replace("+ shift", "+ shift * float('nan')"),
         "refused: differs from the reference by nan"),
        ("raise OSError('no such device')", "failed: OSError: no such device"),
        (RIGHT.replace("return scale *", "raise NotImplementedError('no Affine')  #"),
         "unsupported: no Affine"),
    ],
)  # fmt: skip
def test_what_fails_has_a_note(program, uncounted, source, note):
    start = one(measure_starts({"m": MODEL}, contenders=[program("p", source)], cold=0, warm=1))
    assert start.note.startswith(note)
    assert start.warm_s is None
    assert start.error is None


def test_a_process_beyond_the_limit_has_a_note(program, uncounted):
    hangs = program("hangs", "import threading\nthreading.Event().wait()")
    start = one(measure_starts({"m": MODEL}, contenders=[hangs], cold=0, warm=1, limit_s=0.5))
    assert start.note == "failed: gave no answer within 0.5 s and was ended"


def test_a_library_that_is_missing_has_a_note(uncounted):
    program = Program("no", Path("no.py"), "safetensors", ("fastlstm_no_such", "json"), "runtimes")
    start = one(measure_starts({"m": MODEL}, contenders=[program], cold=0, warm=1))
    assert start.note == (
        "missing: fastlstm_no_such not installed: pip install 'fastlstm[runtimes]'"
    )


def test_a_model_that_looks_ahead_is_refused_by_all(uncounted):
    both = Model((cases.bidirectional("GRU", 1, 2),))
    found = measure_starts({"both": both}, cold=1, warm=1)
    assert [start.contender for start in found] == [program.name for program in PROGRAMS]
    assert {start.note for start in found} == {
        "unsupported: a bidirectional layer needs the whole sequence, the samples to come included"
    }


def test_allocations_are_counted_where_they_can_be(program, tmp_path):
    if measure.build_counter(tmp_path) is None:
        pytest.skip("needs Linux and a C compiler")
    # Two objects beside what NumPy makes for the product and the sum.
    more = RIGHT.replace("return scale", "object(), object()\n        return scale")
    lean, rich = measure_starts(
        {"m": MODEL},
        contenders=[program("lean"), program("rich", more)],
        cold=0,
        warm=0,
    )
    assert rich.allocations_per_step - lean.allocations_per_step == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.UnsupportedError("no\nGRU"), "unsupported: no GRU"),
        (errors.ExportError("not right"), "failed: not right"),
        (
            errors.MissingExtraError("onnx", "onnx", "exporting"),
            "missing: exporting needs onnx, which is not installed. "
            "Install it with: pip install 'fastlstm[onnx]'",
        ),
    ],
)
def test_a_format_that_cannot_be_written_is_a_reason_and_is_asked_for_once(
    error, reason, tmp_path, monkeypatch
):
    asked = []

    def write(model, path):
        asked.append(path)
        raise error

    monkeypatch.setitem(FORMATS, "onnx", (".onnx", write))
    files = ShippedFiles(MODEL, tmp_path)
    assert [files.file("onnx") for _ in range(2)] == [(None, reason)] * 2
    assert asked == [tmp_path / "model.onnx"]
