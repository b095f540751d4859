"""`fastlstm stream`: in a pipe, line by line, bad lines included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest

import fastlstm

pytest.importorskip("typer", reason="needs typer and rich: pip install 'fastlstm[cli]'")


def rows(text: str) -> np.ndarray:
    return np.array([[float(word) for word in line.split(",")] for line in text.splitlines()])


def test_stream_writes_the_predictions_of_the_reference(run, model, model_file):
    x = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    separators = (",", " ", ", ", "\t")
    lines = [f"{a!s}{separators[k % 4]}{b!s}" for k, (a, b) in enumerate(x)]
    result = run("stream", model_file, stdin="# a, b\n\n" + "\n".join(lines) + "\n")
    assert (result.code, result.err) == (0, "")
    np.testing.assert_allclose(rows(result.out), fastlstm.reference.run(model, x), atol=1e-6)
    # The printed text holds every bit of the float32 predictions.
    expected = model.stream().run(x)
    np.testing.assert_array_equal(rows(result.out).astype(np.float32), expected)


def test_stream_takes_a_byte_order_mark(run, model_file):
    marked = run("stream", model_file, stdin="\ufeff0.1,0.2\n")
    assert (marked.code, marked.err) == (0, "")
    assert marked.out == run("stream", model_file, stdin="0.1,0.2\n").out


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1", "expected 2 numbers, found 1"),
        ("1 2 3", "expected 2 numbers, found 3"),
        ("1,,2", "expected 2 numbers, found 3"),
        ("1,", "expected a number, found ''"),
        ("1,two", "expected a number, found 'two'"),
        ("1,1_0", "expected a number, found '1_0'"),
        ("1 nan", "not a finite number"),
        ("inf,1", "not a finite number"),
        ("1e39,1", "too large for float32"),
    ],
)
def test_stream_reports_a_bad_line_and_goes_on_as_if_it_had_not_come(run, model_file, bad, message):
    good = ["0.1,0.2", "0.3,0.4", "0.5,0.6"]
    clean = run("stream", model_file, stdin="\n".join(good))
    result = run("stream", model_file, stdin="\n".join([*good[:2], bad, good[2]]))
    line = result.error
    assert line.startswith("error: line 3: ")
    assert message in line
    assert result.code == 1
    assert result.out == clean.out


def test_stream_answers_each_line_before_the_next_one_comes(model, model_file):
    command = [sys.executable, "-m", "fastlstm", "stream", str(model_file)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    deadline = threading.Timer(120, process.kill)  # an answer that never comes fails, not hangs
    deadline.start()
    live = model.stream()
    try:
        for sample in (b"0.5 -0.5", b"\xff\xfe nonsense", b"1,2"):
            process.stdin.write(sample + b"\n")
            if b"nonsense" in sample:
                assert process.stderr.readline().startswith(b"error: line 2: expected a number")
                continue
            x = np.array(sample.replace(b",", b" ").split(), np.float32)
            answer = rows(process.stdout.readline().decode())
            np.testing.assert_array_equal(answer.astype(np.float32), [live.step(x)])
        assert process.poll() is None
        process.stdin.close()
        assert process.wait() == 1
        assert process.stderr.read() == b""
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix terminal")
def test_stream_at_a_terminal_says_what_to_type_and_stops_on_ctrl_c(model_file):
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fastlstm", "stream", str(model_file)]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        # A suite started in the background ignores Ctrl-C, and its children with it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = threading.Timer(120, process.kill)
    deadline.start()
    try:
        assert process.stderr.readline() == b"Type 2 numbers a line; end with Ctrl-D.\n"
        os.write(ours, b"1 2\n")
        assert rows(process.stdout.readline().decode()).shape == (1, 2)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert b"Traceback" not in process.stderr.read()
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(("name", "handle"), [("input", 0), ("output", 1)])
def test_stream_without_a_standard_stream_is_one_clear_error(model_file, name, handle):
    """As a service manager may start it."""
    command = [sys.executable, "-m", "fastlstm", "stream", str(model_file)]
    done = subprocess.run(
        command,
        input=b"1,2\n" if handle else None,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.close(handle),
    )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [f"error: stream: standard {name} is closed"]


def test_stream_into_a_closed_pipe_ends_quietly(model_file):
    command = [sys.executable, "-m", "fastlstm", "stream", str(model_file)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    _, err = process.communicate(b"1,2\n" * 3, timeout=120)
    assert err == b""
