"""Stream: the reference's numbers, the same bits however it is cut, unharmed by bad input."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cases
import checks
import fastlstm
from fastlstm.errors import InputError, ModelError, SnapshotError, StreamBusyError
from fastlstm.kernels import calls
from fastlstm.kernels.calls import compiled_calls
from fastlstm.model import Dense, Model
from fastlstm.verify import judge, truth


@pytest.mark.parametrize("name", list(cases.MODELS))
def test_stays_within_the_bound(name):
    model = cases.model(name)
    x = cases.stream(model, 600)
    true = truth(model, x)
    stream = model.stream()

    def run(x):
        return stream.run(x), stream.state

    row = judge("run", run, true)
    assert row.verdict == "ok", row


@pytest.mark.parametrize("name", list(cases.MODELS))
def test_every_way_of_cutting_gives_the_same_bits(name):
    model = cases.model(name)
    x = cases.stream(model, 100)
    whole = model.stream()
    expected = whole.run(x)

    stepped = model.stream()
    kept = [stepped.step(sample) for sample in x]
    assert np.array_equal(np.array(kept), expected)

    pushed = model.stream()
    for sample, row in zip(x, expected, strict=True):
        pushed.push(sample)
        assert np.array_equal(pushed.output, row)

    rng = np.random.default_rng(3)
    for _ in range(5):
        cut = model.stream()
        cuts = np.sort(rng.integers(0, len(x), 7))
        blocks = []
        for block in np.split(x, cuts):
            if len(block) == 1:
                blocks.append(cut.step(block[0])[np.newaxis])
            else:
                blocks.append(cut.run(block))
        assert np.array_equal(np.concatenate(blocks), expected)
        for a, b, c, d in zip(whole.state, stepped.state, pushed.state, cut.state, strict=True):
            assert np.array_equal(a, b)
            assert np.array_equal(a, c)
            assert np.array_equal(a, d)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.sampled_from(["step", "push"]))
def test_chunk_invariance(sizes, single):
    model = MIXED
    x = cases.stream(model, sum(sizes) or 1)
    expected = model.stream().run(x)
    stream, done, found = model.stream(), 0, []
    for size in sizes:
        block = x[done : done + size]
        if size == 1 and single == "push":
            stream.push(block[0])
            found.append(stream.output.copy()[np.newaxis])
        elif size == 1:
            found.append(stream.step(block[0])[np.newaxis])
        else:
            found.append(stream.run(block))
        done += size
    assert np.array_equal(np.concatenate(found), expected[:done])


MIXED = cases.model("mixed")


def test_the_past_does_not_depend_on_the_future():
    model = cases.stack("LSTM", 17, 2)
    x = cases.stream(model, 50)
    other = x.copy()
    other[30:] += 1
    a, b = model.stream().run(x), model.stream().run(other)
    assert np.array_equal(a[:30], b[:30])
    assert not np.array_equal(a[30], b[30])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("hidden", [8, 17, 64])
def test_no_further_than_twice_torch_float32_over_10000_steps(kind, hidden):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.set_num_threads(1)
    module = getattr(torch.nn, kind)(1, hidden)
    checks.no_further_than_twice_torch(cases.recurrent(kind, 1, hidden), module)


def test_outputs_of_step_are_safe_to_keep():
    model = cases.stack("GRU", 9, 1)
    x = cases.stream(model, 30)
    stream = model.stream()
    kept = [stream.step(sample) for sample in x]
    copies = [y.copy() for y in kept]
    stream.run(x)
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_output_is_one_read_only_buffer():
    stream = cases.stack("LSTM", 4, 1).stream()
    before = stream.output
    assert before.tolist() == [0]
    stream.push(np.ones(2, np.float32))
    assert stream.output is before
    assert before[0] != 0
    with pytest.raises(ValueError, match="read-only"):
        stream.output[0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        stream.output.setflags(write=True)


def test_inputs_are_untouched_and_any_layout_will_do():
    model = cases.model("wide-input")
    x = cases.stream(model, 20)
    expected = model.stream().run(x)
    before = x.copy()
    frozen = x.copy()
    frozen.setflags(write=False)
    strided = np.zeros((20, 130), np.float32)
    strided[:, ::2] = x
    for form in (frozen, np.asfortranarray(x), strided[:, ::2], x.astype(np.float64), x.tolist()):
        assert np.array_equal(model.stream().run(form), expected)
        stream = model.stream()
        assert np.array_equal(np.array([stream.step(sample) for sample in form]), expected)
    assert np.array_equal(x, before)
    swapped = x.astype(">f4")
    assert np.array_equal(model.stream().step(swapped[0]), expected[0])


def test_one_value_may_come_as_any_number():
    model = cases.stack("LSTM", 5, 1, inputs=1)
    expected = model.stream().step(np.array([2], np.float32))
    for value in (2, 2.0, np.float32(2), np.float64(2), np.int8(2), [2], np.array(2.0)):
        assert np.array_equal(model.stream().step(value), expected)
    assert np.array_equal(model.stream().run([2.0]), expected[np.newaxis])


def test_its_own_output_may_be_the_next_sample():
    model = Model((cases.recurrent("LSTM", 20, 20),))
    a, b = model.stream(), model.stream()
    a.push(np.ones(20, np.float32))
    b.push(np.ones(20, np.float32))
    for _ in range(5):
        a.push(a.output)
        b.push(b.output.copy())
    assert np.array_equal(a.output, b.output)


BAD_SAMPLES = [
    (np.zeros(3, np.float32), ["(2,)", "(3,)"]),
    (np.zeros((1, 2), np.float32), ["(2,)", "(1, 2)", "run"]),
    (1.0, ["(2,)", "()"]),
    (np.array([1, np.nan], np.float32), ["nan at index (1,)", "not a finite"]),
    (np.array([np.inf, 1], np.float32), ["inf at index (0,)"]),
    (np.array([-np.inf, 1]), ["-inf at index (0,)"]),
    (np.array([1e300, 1]), ["1e+300", "too large for float32"]),
    ("12", ["2 float32 values", "str"]),
    (None, ["2 float32 values", "NoneType"]),
    (np.array([1j, 2]), ["complex128"]),
    (np.array([True, False]), ["bool"]),
    (["a", "b"], ["list"]),
    ([[1], [1, 2]], ["2 float32 values"]),
]


@pytest.mark.parametrize(("bad", "words"), BAD_SAMPLES)
@pytest.mark.parametrize("method", ["step", "push"])
def test_a_bad_sample_is_explained_and_changes_nothing(method, bad, words):
    model = cases.stack("LSTM", 7, 2)
    x = cases.stream(model, 10)
    stream, untouched = model.stream(), model.stream()
    stream.run(x)
    untouched.run(x)
    with pytest.raises(InputError) as caught:
        getattr(stream, method)(bad)
    for word in words:
        assert word in str(caught.value)
    assert stream.snapshot() == untouched.snapshot()
    assert np.array_equal(stream.step(x[0]), untouched.step(x[0]))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((4, 3), np.float32), ["(time, 2)", "(4, 3)"]),
        (np.zeros(2, np.float32), ["(time, 2)", "(2,)", "step or push"]),
        (np.array([[1, 2], [3, np.nan]]), ["nan at index (1, 1)", "state is unchanged"]),
        ("abc", ["block", "str"]),
    ],
)
def test_a_bad_block_is_explained_and_changes_nothing(bad, words):
    model = cases.stack("GRU", 7, 1)
    stream = model.stream()
    stream.run(cases.stream(model, 10))
    before = stream.snapshot()
    with pytest.raises(InputError) as caught:
        stream.run(bad)
    for word in words:
        assert word in str(caught.value)
    assert stream.snapshot() == before


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_a_bad_float_is_explained(bad):
    stream = cases.stack("LSTM", 5, 1, inputs=1).stream()
    before = stream.snapshot()
    with pytest.raises(InputError, match=r"finite|too large"):
        stream.push(bad)
    assert stream.snapshot() == before


def test_an_empty_block_is_fine():
    model = cases.stack("LSTM", 5, 1)
    stream = model.stream()
    assert stream.run(np.zeros((0, 2), np.float32)).shape == (0, 1)
    assert stream.steps == 0


def test_forecast_feeds_outputs_back():
    model = cases.stack("LSTM", 12, 1, inputs=1)
    stream, by_hand = model.stream(), model.stream()
    x = cases.stream(model, 20)
    stream.run(x)
    by_hand.run(x)
    expected = []
    for _ in range(15):
        expected.append(by_hand.step(by_hand.output))
    assert np.array_equal(stream.forecast(15), np.array(expected))
    assert stream.snapshot() == by_hand.snapshot()
    assert stream.forecast(0).shape == (0, 1)


def test_forecast_says_what_it_needs():
    with pytest.raises(InputError, match="takes 2 values and puts out 1"):
        cases.stack("LSTM", 3, 1).stream().forecast(3)
    stream = cases.stack("LSTM", 3, 1, inputs=1).stream()
    with pytest.raises(InputError, match="at least one sample"):
        stream.forecast(3)
    stream.push(1.0)
    for bad in (-1, 2.5, "3", None):
        with pytest.raises(InputError, match=rf"at least 0, found {bad!r}"):
            stream.forecast(bad)


@pytest.mark.parametrize("name", ["mixed", "lstm-stack", "learned-start", "RNN-130"])
@pytest.mark.parametrize("before", [0, 7, 8])
def test_a_snapshot_continues_to_the_bit(name, before):
    model = cases.model(name)
    x = cases.stream(model, 40)
    stream = model.stream()
    stream.run(x[:before])
    kept = stream.snapshot()
    expected = stream.run(x[before:])
    stream.restore(kept)
    assert stream.snapshot() == kept
    assert np.array_equal(stream.run(x[before:]), expected)
    other = Model(model.layers).stream()
    other.restore(memoryview(kept))
    assert np.array_equal(other.run(x[before:]), expected)
    assert other.steps == len(x)


def test_a_wrong_snapshot_is_refused_and_changes_nothing():
    model = cases.stack("LSTM", 6, 1)
    stream = model.stream()
    stream.run(cases.stream(model, 9))
    good = stream.snapshot()
    other = cases.stack("LSTM", 6, 1, bias=False).stream().snapshot()
    flipped = bytearray(good)
    flipped[40] ^= 1
    endless = good[:24] + b"\xff" * 8 + good[32:-4]
    endless += zlib.crc32(endless).to_bytes(4, "little")
    for bad, words in [
        (b"", "not one of fastlstm"),
        (b"x" * len(good), "not one of fastlstm"),
        (other, "other weights"),
        (good[:-1], "cut or padded"),
        (good + b"\0", "cut or padded"),
        (bytes(flipped), "checksum"),
        (None, "expected the bytes of snapshot"),
        ("text", "found str"),
        (endless, "more than a stream can have taken"),
    ]:
        with pytest.raises(SnapshotError, match=words):
            stream.restore(bad)
        assert stream.snapshot() == good


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_is_not_copied_by_accident(duplicate):
    stream = cases.stack("LSTM", 6, 1).stream()
    with pytest.raises(TypeError, match=r"snapshot\(\)"):
        duplicate(stream)


def test_a_stream_keeps_what_it_needs_alive():
    stream = cases.stack("LSTM", 64, 1).stream()
    x = cases.stream(stream.model, 50)
    expected = cases.stack("LSTM", 64, 1).stream().run(x)
    gc.collect()
    # Whatever was freed is written over.
    kept = [np.full(30_000, np.nan, np.float32) for _ in range(50)]
    assert np.array_equal(stream.run(x), expected)
    assert len(kept) == 50


def test_a_stream_is_of_a_model():
    with pytest.raises(ModelError, match="expected a fastlstm Model, found int"):
        fastlstm.Stream(3)


def test_arrays_with_a_dtype_object_of_their_own_are_read_at_once():
    """Arrays that come through a queue between processes; a detour costs twenty times as much."""
    model = cases.stack("LSTM", 5, 1)
    sample = pickle.loads(pickle.dumps(np.array([1, 2], np.float32)))
    stream = model.stream()
    assert stream._push(sample, stream._memory) == calls.DONE
    for other in (np.zeros(2), np.zeros(2, np.int32), np.zeros(2, ">f4"), np.zeros(2, np.float16)):
        assert stream._push(other, stream._memory) == calls.NOT_PLAIN


def test_masked_values_are_not_read():
    stream = cases.stack("LSTM", 5, 1).stream()
    masked = np.ma.masked_array(np.ones(2, np.float32), [False, True])
    for call in (stream.push, stream.step, lambda x: stream.run(x[np.newaxis])):
        with pytest.raises(InputError, match="masked values"):
            call(masked)
    stream.push(np.ma.masked_array(np.ones(2, np.float32), False))
    assert stream.steps == 1


def test_a_sum_that_overflows_does_not_end_in_a_plausible_number():
    huge = np.full((2, 1), 3e38, np.float32)
    for head in ("tanh", "sigmoid", "relu", "softmax"):
        difference = Dense(np.array([[1, -1], [1, -1]], np.float32), None, head)
        model = Model((Dense(huge), difference))
        assert np.isnan(model.stream().step(100.0)).any()


def test_a_forecast_that_diverges_is_refused_and_changes_nothing():
    model = Model((Dense(np.array([[100]], np.float32)),))
    stream = model.stream()
    stream.push(1.0)
    before = stream.snapshot()
    with pytest.raises(InputError, match="not finite from step 19 on"):
        stream.forecast(40)
    assert stream.snapshot() == before
    assert np.isfinite(stream.forecast(17)).all()


def test_the_first_streams_may_be_made_in_many_threads():
    script = """
import threading
import cases
model = cases.stack("LSTM", 6, 1)
errors, gate = [], threading.Barrier(8)
def make():
    gate.wait()
    try:
        cases.stack("LSTM", 6, 1).stream().push([1, 2])
        model.stream().push([1, 2])
    except Exception as error:
        errors.append(error)
threads = [threading.Thread(target=make) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not errors, errors
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_without_jit_it_says_so():
    done = subprocess.run(
        [sys.executable, "-c", "import cases; cases.stack('LSTM', 3, 1).stream()"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert "NUMBA_DISABLE_JIT forbids compiling" in done.stderr


def test_reset_begins_again():
    model = cases.model("learned-start")
    x = cases.stream(model, 33)
    stream = model.stream()
    expected = stream.run(x)
    stream.reset()
    assert stream.steps == 0
    assert stream.snapshot() == model.stream().snapshot()
    assert np.array_equal(stream.run(x), expected)


def test_streams_of_one_model_are_independent_across_threads():
    model = cases.stack("LSTM", 64, 1)
    inputs = [cases.stream(model, 3000, seed) for seed in range(4)]
    expected = [model.stream().run(x) for x in inputs]
    found = [None] * 4

    def drive(k):
        stream = model.stream()
        found[k] = np.concatenate([stream.run(block) for block in np.split(inputs[k], 30)])

    threads = [threading.Thread(target=drive, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(a, b)


def test_a_stream_in_use_raises_and_keeps_its_state():
    model = cases.stack("LSTM", 5, 1)
    stream = model.stream()
    x = cases.stream(model, 4)
    before = stream.snapshot()
    address = stream._memory.ctypes.data
    assert compiled_calls().claim(address)
    try:
        for call in (
            lambda: stream.push(x[0]),
            lambda: stream.step(x[0]),
            lambda: stream.run(x),
            stream.snapshot,
            stream.reset,
            lambda: stream.restore(before),
            lambda: stream.state,
        ):
            with pytest.raises(StreamBusyError, match="in use by another thread"):
                call()
    finally:
        compiled_calls().release(address)
    assert stream.snapshot() == before


def test_two_threads_at_once_never_mix():
    model = cases.stack("LSTM", 64, 1)
    stream = model.stream()
    x = cases.stream(model, 200_000)
    refused = []
    started = threading.Event()

    def drive():
        started.set()
        stream.run(x)

    thread = threading.Thread(target=drive)
    thread.start()
    started.wait()
    while thread.is_alive():
        try:
            stream.push(x[0])
        except StreamBusyError:
            refused.append(1)
            break
    thread.join()
    assert refused
    expected = model.stream()
    taken = stream.steps - len(x)
    # What was pushed before `run` took the stream came first; nothing came in between.
    for _ in range(taken):
        expected.push(x[0])
    expected.run(x)
    assert stream.snapshot() == expected.snapshot()


def test_unknown_array_layouts_are_read_by_address(monkeypatch):
    model = cases.stack("LSTM", 9, 1)
    x = cases.stream(model, 20)
    expected = model.stream().run(x)
    monkeypatch.setattr("fastlstm.stream.fields_are_known", lambda: False)
    stream = model.stream()
    assert np.array_equal(np.array([stream.step(sample) for sample in x]), expected)
    stream.reset()
    for sample, row in zip(x.astype(np.float64), expected, strict=True):
        stream.push(sample)
        assert np.array_equal(stream.output, row)
    before = stream.snapshot()
    with pytest.raises(InputError, match="not a finite"):
        stream.push(np.array([np.nan, 0], np.float32))
    assert stream.snapshot() == before


def test_push_allocates_nothing_but_the_call():
    """Counted by Python's own allocator; `step`, which makes an array, is the negative control."""
    import tracemalloc

    model = cases.stack("LSTM", 16, 1)
    stream = model.stream()
    sample = np.ones(2, np.float32)

    def grown(method):
        method(sample)
        kept = []
        tracemalloc.start()
        for _ in range(200):
            kept.append(method(sample))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert grown(stream.step) > 200 * 50
    # The list's own growth is all there is.
    assert grown(stream.push) < 200 * 16


@pytest.mark.parametrize("name", ["LSTM-16", "GRU-16", "RNN-16"])
def test_silence_does_not_slip_into_denormals(name):
    kind = name.split("-")[0]
    model = Model((cases.recurrent(kind, 1, 16, bias=False),))
    stream = model.stream()
    stream.push(1e-3)
    stream.run(np.zeros((5000, 1), np.float32))
    tiny = np.finfo(np.float32).tiny
    for vector in stream.state:
        assert np.all((vector == 0) | (np.abs(vector) >= tiny))
