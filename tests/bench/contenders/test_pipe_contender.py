"""bench/contenders/pipe.py: a program of its own, well-behaved and in every way not."""

import os
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastlstm import reference
from fastlstm.bench.contenders import pipe, pipe_process
from fastlstm.bench.contenders.contender import ALL
from fastlstm.bench.contenders.pipe_checks import OutputCheck, times_in_a_row, times_on_schedule
from fastlstm.bench.contenders.pipe_process import ContenderError, ContenderProcess
from fastlstm.bench.timing.driver import Driver
from fastlstm.errors import InputError, UnsupportedError
from fastlstm.model import Affine, Model
from fastlstm.model_file import load

DOUBLE_AND_ONE = Model((Affine(np.array([2], np.float32), np.array([1], np.float32)),))
FAKE = Path(__file__).with_name("fake_contender.py")


@pytest.fixture
def command():
    def with_fault(fault=""):
        return shlex.join([sys.executable, "-I", "-S", str(FAKE), fault])

    return with_fault


@pytest.fixture
def opened(command):
    sessions = []

    def open_session(fault=""):
        sessions.append(pipe.PipeSession(DOUBLE_AND_ONE, command(fault)))
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()


def gone(pid):
    """Whether no process runs by that number; one that nobody waits for is as good as gone."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(") ")[2][0] in "ZX"


def column(*values):
    return np.array(values, np.float32)[:, None]


def test_a_program_says_who_it_is(command):
    contender = pipe.pipe_contender(command())
    assert (contender.name, contender.version()) == ("double and one", "7")
    assert contender.configuration == "a process of its own, timed by its own clock; a fake"
    assert (contender.precision, contender.can, contender.missing()) == ("float32", ALL, "")
    with_less = pipe.pipe_contender(command("hello:can=step"))
    assert with_less.can == {"step"}
    assert pipe.pipe_contender(command("hello:configuration=-")).configuration.endswith("; ")


def test_outputs_are_those_of_the_program(command):
    session = pipe.pipe_contender(command()).open(DOUBLE_AND_ONE)
    x = reference.check_input(DOUBLE_AND_ONE, 30)
    exact = 2 * x.astype(np.float64) + 1
    session.reset()
    # Nine digits of the sample, and nine of the output.
    near = {"rtol": 5e-9, "atol": 2e-8}
    np.testing.assert_allclose([session.step(sample) for sample in x], exact, **near)
    np.testing.assert_allclose(session.run(x), exact, **near)
    streams = session.batch(3)
    streams.reset()
    np.testing.assert_allclose(streams.step(x[:3]), exact[:3], **near)
    session.close()
    session.close()
    assert gone(session.process._process.pid)


def test_a_block_longer_than_the_pipe_holds(opened):
    x = reference.check_input(DOUBLE_AND_ONE, 60_000)
    exact = 2 * x.astype(np.float64) + 1
    np.testing.assert_allclose(opened().run(x), exact, rtol=5e-9, atol=2e-8)


def test_only_the_newest_group_of_streams_is_live(opened):
    session = opened()
    first = session.batch(1)
    second = session.batch(2)
    with pytest.raises(InputError, match="reset it"):
        first.step(column(1))
    assert second.step(column(1, 2)).tolist() == [[3], [5]]
    first.reset()
    assert first.step(column(4)).tolist() == [[9]]
    session.batches(np.zeros((3, 2, 1), np.float32))
    with pytest.raises(InputError, match="another began"):
        first.step(column(4))


def test_the_program_drives_itself_by_its_own_clock(opened):
    session = opened()
    assert isinstance(session, Driver)
    x = reference.check_input(DOUBLE_AND_ONE, 40)
    taken = session.steps(x, 50)
    assert (taken.step_ns, taken.calls_ns.tolist()) == (10, [10] * 50)
    taken = session.sequences(x, 3)
    assert (taken.step_ns, taken.calls_ns.tolist()) == (10, [400] * 3)
    taken = session.batches(x.reshape(8, 5, 1))
    assert (taken.step_ns, taken.calls_ns.tolist()) == (2, [10] * 8)
    taken = session.scheduled(x[:6].reshape(2, 3, 1), np.array([0, 100]))
    assert (taken.calls_ns.tolist(), taken.step_ns) == ([10, 10], 10 / 3)


def test_a_stall_is_seen_by_the_calls_that_had_to_wait(opened):
    due = np.arange(8) * 100
    taken = opened().scheduled(column(*range(8))[:, None], due)
    # The third call takes 450 ns, so the next begin 350, 260, 170 and 80 ns late.
    assert taken.calls_ns.tolist() == [10, 10, 450, 360, 270, 180, 90, 10]
    assert taken.step_ns == 135


def test_a_program_that_times_late_calls_from_their_begin_is_refused(opened):
    with pytest.raises(ContenderError, match="call 3 done no earlier than call 2, at 650 ns"):
        opened("from its begin").scheduled(column(*range(8))[:, None], np.arange(8) * 100)


def test_a_program_that_does_not_wait_is_refused(opened):
    with pytest.raises(ContenderError, match="after the last call was done, at 1,000,000,000,010"):
        opened().scheduled(column(1, 2)[:, None], np.array([0, 10**12]))


def test_a_schedule_that_is_given_up(opened, monkeypatch):
    looks = iter([0, 10**10])
    monkeypatch.setattr(pipe, "perf_counter_ns", lambda: next(looks))
    taken = opened("a second late").scheduled(column(1, 2, 3, 4)[:, None], np.arange(4) * 100)
    assert taken.calls_ns.tolist() == [10, 1_000_000_001]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("stale", r"last= of the outputs of 6 timed steps, at place 0 5 within .* found '5.001"),
        ("empty loop", r"sum= of .* 6 timed steps, at place 0 20 within .* found '0,"),
        ("not a number", "found 'nan, so that what was timed is not the model"),
        ("few sums", "expected 1 values in sum=, found '0: '"),
        ("no times", "expected the fields calls, found"),
        ("frozen clock", "expected a total= above 0 ns"),
        ("fast clock", "ns that passed here, found '1,000,000,000,000,020 ns'"),
    ],
)
def test_a_turn_that_cannot_be_is_refused(opened, fault, message):
    session = opened(fault)
    with pytest.raises(ContenderError, match=message):
        session.steps(column(1, 2, 0, 1), 2)
    assert gone(session.process._process.pid)


@pytest.mark.parametrize("fault", ["stale", "empty loop"])
@pytest.mark.parametrize(
    "turn",
    [
        lambda session, x: session.sequences(x, 2),
        lambda session, x: session.scheduled(x[:, None], np.arange(6) * 1000),
        lambda session, x: session.batches(x.reshape(2, 3, 1)),
    ],
    ids=["sequences", "scheduled", "batches"],
)
def test_outputs_are_checked_in_every_turn(opened, fault, turn):
    x = column(1, 2, 3, 4, 5, 6)
    turn(opened(), x)
    with pytest.raises(ContenderError, match="what was timed is not the model"):
        turn(opened(fault), x)


def test_a_program_of_less_precision_is_held_to_its_own_outputs(command):
    x = column(0.123, 0.456, 0.789, 0.33)
    with pipe_session(command("hello:precision=int8")) as session:
        assert session.run(x).tolist() == [[1.2], [1.9], [2.6], [1.7]]
        for taken in (
            session.steps(x, 2),
            session.sequences(x, 2),
            session.scheduled(x.reshape(2, 2, 1), np.array([0, 100])),
            session.batches(x.reshape(2, 2, 1)),
        ):
            assert taken.calls_ns.min() > 0
    x = column(*np.linspace(0, 1, 50))
    y = 2.1 * x.astype(np.float64) + 1
    output_check = OutputCheck(DOUBLE_AND_ONE, "int8")

    def check(last, total):
        return output_check("step", x[:, None], 50, last, total, lambda kind, blocks: y)

    assert check(y[-1], y.sum(axis=0)) is None
    assert "last=" in check(y[-2], y.sum(axis=0))[0]
    assert "sum=" in check(y[-1], y[:-1].sum(axis=0))[0]


class pipe_session:
    """A session that is closed at the end."""

    def __init__(self, command):
        self.session = pipe.PipeSession(DOUBLE_AND_ONE, command)

    def __enter__(self):
        return self.session

    def __exit__(self, *error):
        self.session.close()


def test_times_that_can_be():
    late = np.array([10, 450, 360])
    due = np.array([0, 100, 200, 300])
    assert times_on_schedule(late, due, 560) is None
    assert "one after 500 ns" in times_on_schedule(late, due, 500)[1]
    assert "call 2" in times_on_schedule(np.array([10, 450, 10]), due, 10**6)[0]
    assert times_in_a_row(np.array([10, 20]), 70, 100) is None
    assert times_in_a_row(np.array([10, 20]), 80, 100)[1] == "110 ns"


def test_outputs_are_worked_out_once_for_the_same_samples():
    asked = []

    def untimed(kind, blocks):
        asked.append(kind)
        return blocks[:, 0].astype(np.float64)

    check = OutputCheck(DOUBLE_AND_ONE, "int8")
    x = column(1, 2)[:, None]
    for _ in range(3):
        assert check("step", x, 2, np.array([2.0]), np.array([3.0]), untimed) is None
    assert asked == ["step"]
    x = column(1, 3)[:, None]
    assert check("step", x, 2, np.array([3.0]), np.array([4.0]), untimed) is None
    assert asked == ["step", "step"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dies", "asked for `step`: it ended with exit code 3; its last .* 'last words'"),
        ("killed", "asked for `step`: it ended with signal 9; nothing on standard error"),
        ("error", "it answered an error to `step`: out of luck"),
        ("nonsense", "expected `ok`, `error REASON` or `unsupported REASON`, found '0.5 0.25'"),
        ("words", "expected 1 values, found 'one'"),
        ("too many", "expected 1 values, found '2: 1 2'"),
        ("endless", r"expected an answer of at most 4,128 bytes, found 'ok 1{117} \.\.\.'"),
    ],
)
def test_a_program_that_misbehaves_while_it_computes(opened, fault, message):
    session = opened(fault)
    with pytest.raises(ContenderError, match=message):
        session.step(np.ones(1, np.float32))
    if fault != "error":
        assert gone(session.process._process.pid)
        with pytest.raises(ContenderError, match="it has ended already"):
            session.reset()


def test_a_line_too_many(opened):
    session = opened("two lines")
    session.process.ask("ping")
    with pytest.raises(ContenderError, match=r"expected one line for each request, found 'ok\\n'"):
        session.reset()


def test_a_death_between_two_requests(opened):
    session = opened()
    os.kill(session.process._process.pid, 15)
    session.process._process.wait()
    with pytest.raises(ContenderError, match="asked for `reset`: it ended with signal 15"):
        session.reset()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("hello:protocol=2", "expected protocol=version 1, found 'protocol=2'"),
        ("hello:name=-", "expected the fields name, found"),
        ("hello:name=", "expected name=a name"),
        ("hello:name=a\x1b[2J", "printable characters"),
        ("hello:configuration=" + "x" * 301, "at most 300 printable"),
        ("hello:format=pt", "expected format=one of safetensors, onnx, found 'format=pt'"),
        ("hello:precision=float16", "expected precision=one of float32, float64, int8"),
        ("hello:can=step fly", "expected can=some of batch, run, step, found 'can=step fly'"),
        ("closes its output", "asked for `hello`: it "),
    ],
)
def test_a_program_that_is_no_contender(command, monkeypatch, fault, message):
    monkeypatch.setattr(pipe_process, "GRACE_S", 0.0)
    with pytest.raises(ContenderError, match=message):
        pipe.pipe_contender(command(fault))


def test_a_silent_program(command):
    with pytest.raises(ContenderError, match="asked for `hello`: it was silent for 0 s"):
        pipe.pipe_contender(command("silent"), silent_s=0.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "expected a command line, found none"),
        ("a 'b", "expected a command line: No closing quotation"),
        ("/nowhere/contender --fast", "found '/nowhere/contender': No such file"),
    ],
)
def test_a_command_line_that_cannot_be_started(line, message):
    with pytest.raises(InputError, match=message):
        pipe.pipe_contender(line)


def test_what_a_program_does_not_take(command):
    with pytest.raises(UnsupportedError, match=r"it is too wide$"):
        pipe.pipe_contender(command("too wide")).open(DOUBLE_AND_ONE)
    with pytest.raises(ContenderError, match="expected ok 1 1 after load, found 'ok 1 2'"):
        pipe.pipe_contender(command("sizes")).open(DOUBLE_AND_ONE)


@pytest.mark.parametrize("fault", ["family", "stays"])
def test_nothing_is_left_behind(command, monkeypatch, fault):
    monkeypatch.setattr(pipe_process, "GRACE_S", 0.05)
    process = ContenderProcess(command(fault))
    process.ask("hello 1")
    process.ask("ping")
    process.close()
    assert gone(process._process.pid)
    if fault == "family":
        grandchild = int(process._errors)
        # A signal is not yet an end, and it is not this process that can wait for that.
        while not gone(grandchild):
            time.sleep(0.001)


def test_a_forgotten_session_ends_its_program(command):
    session = pipe.PipeSession(DOUBLE_AND_ONE, command())
    pid = session.process._process.pid
    assert not gone(pid)
    del session
    assert gone(pid)


@pytest.mark.parametrize("file_format", ["safetensors", "onnx"])
def test_the_file_that_a_program_gets(command, monkeypatch, tmp_path, file_format):
    copy = tmp_path / "copy"
    monkeypatch.setenv("COPY", str(copy))
    if file_format == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime not installed")
    with pipe_session(command(f"hello:format={file_format}")):
        pass
    if file_format == "onnx":
        from fastlstm import from_onnx

        found = from_onnx(copy)
    else:
        found = load(copy)
    assert found.layers[0].scale.tolist() == [2]
    assert found.layers[0].shift.tolist() == [1]


def test_the_round_trip_is_timed_here(opened, monkeypatch):
    looks = iter([100, 250, 300, 350])
    monkeypatch.setattr(pipe, "perf_counter_ns", lambda: next(looks))
    assert pipe.round_trip_ns(opened(), 2) == [150, 50]
