"""A contender's program: started, asked a line at a time, and never left behind.

The program's own clock times; this file must not. docs/contender-protocol.md is the protocol.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import signal
import subprocess
import weakref
from time import monotonic
from typing import Any

from fastlstm.errors import FastLSTMError, InputError, UnsupportedError

# How long an answer may take beside what the request itself asks to wait.
SILENT_S = 120.0
# How long a program may take to end after `quit`, or after it has closed its standard output.
GRACE_S = 2.0
# The longest answer: so much for words, and so much for each value that was asked for.
WORDS_BYTES, VALUE_BYTES = 4096, 32
ANSWER = re.compile(r"(ok|error|unsupported)([ \t].*)?", re.DOTALL)
# How much of standard error is kept, and how much of anything a message quotes.
KEPT_BYTES, QUOTED = 4096, 120


class ContenderError(FastLSTMError, RuntimeError):
    """A contender's program died, was silent, or answered what it must not."""


class ContenderProcess:
    """The program of one command line, and its three pipes.

    After an error in the exchange itself the process has ended: what it would say next could be
    the answer to anything.
    """

    def __init__(self, command: str, silent_s: float = SILENT_S) -> None:
        """Start it. InputError where the command line is none or cannot be started."""
        self.command, self.silent_s = command, silent_s
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise InputError(f"contender {command!r}: expected a command line: {error}") from None
        if not words:
            raise InputError("contender: expected a command line, found none")
        try:
            # In a session of its own, so that what it starts itself can be ended with it.
            self._process = subprocess.Popen(
                words,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise InputError(
                f"contender {command!r}: expected a program that can be started, "
                f"found {words[0]!r}: {error.strerror or error}"
            ) from None
        self._end = weakref.finalize(self, _end, self._process)
        process: Any = self._process
        self._in, self._out, self._err = (
            pipe.fileno() for pipe in (process.stdin, process.stdout, process.stderr)
        )
        self._answers, self._errors = bytearray(), b""
        self._selector = selectors.DefaultSelector()
        for fd in (self._in, self._out, self._err):
            os.set_blocking(fd, False)
        for fd in (self._out, self._err):
            self._selector.register(fd, selectors.EVENT_READ)
        self._asked = "nothing"

    def ask(self, request: str, *, values: int = 0, wait_s: float = 0.0) -> str:
        """What follows `ok` in the answer, of at most about `values` numbers.

        `wait_s` is how long the request itself asks the program to wait. UnsupportedError for an
        answer `unsupported`, ContenderError for `error` and for all that is no answer.
        """
        if not self._end.alive:
            raise ContenderError(f"contender {self.command!r}: it has ended already")
        self._asked = request.partition(" ")[0]
        limit_s = self.silent_s + wait_s
        line = self._exchange(f"{request}\n".encode(), WORDS_BYTES + VALUE_BYTES * values, limit_s)
        text = line.decode("utf-8", "replace")
        match = ANSWER.fullmatch(text)
        if match is None:
            raise self.nonsense("`ok`, `error REASON` or `unsupported REASON`", text)
        word, rest = match[1], match[2] or ""
        if word == "ok":
            return rest
        reason = " ".join(rest.split()) or "no reason given"
        if word == "unsupported":
            raise UnsupportedError(f"contender {self.command!r}: {reason}")
        raise ContenderError(
            f"contender {self.command!r}: it answered an error to `{self._asked}`: {reason}"
        )

    def nonsense(self, expected: str, found: str) -> ContenderError:
        """End the process, and give the error that names what was expected and what came."""
        return self._failure(f"expected {expected}, found {_quoted(found)}")

    def close(self) -> None:
        """Ask it to quit, and end it if it does not; again does nothing."""
        if self._end.alive:
            with contextlib.suppress(ContenderError):
                self._asked = "quit"
                self._exchange(b"quit\n", WORDS_BYTES, GRACE_S)
        if self._end.alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        self._stop()

    def _exchange(self, request: bytes, most: int, limit_s: float) -> bytes:
        """Send a line, read a line; everything else is an error that ends the process."""
        answers = self._answers
        if not self._receive(self._out):
            raise self._died()
        if answers:
            raise self.nonsense("one line for each request", answers.decode("utf-8", "replace"))
        deadline = monotonic() + limit_s
        rest = self._send(memoryview(request))
        searched = 0
        while (end := answers.find(b"\n", searched)) < 0:
            searched = len(answers)
            if searched > most:
                raise self.nonsense(
                    f"an answer of at most {most:,} bytes", answers.decode("utf-8", "replace")
                )
            ready = self._selector.select(max(0.0, deadline - monotonic()))
            if not ready and monotonic() >= deadline:
                raise self._failure(f"it was silent for {limit_s:g} s")
            for key, _ in ready:
                if key.fd == self._in:
                    rest = self._send(rest)
                elif not self._receive(key.fd) and key.fd == self._out:
                    raise self._died()
        line = bytes(answers[:end])
        del answers[: end + 1]
        if rest:
            raise self.nonsense(
                "no answer before the request is read", line.decode(errors="replace")
            )
        return line

    def _send(self, rest: memoryview) -> memoryview:
        """Write what the pipe takes; while something is left, wait for the pipe too."""
        waiting = self._in in self._selector.get_map()
        try:
            while rest:
                rest = rest[os.write(self._in, rest) :]
        except BlockingIOError:
            if not waiting:
                self._selector.register(self._in, selectors.EVENT_WRITE)
            return rest
        except BrokenPipeError:
            # That it has ended, and how, is seen at its standard output.
            rest = rest[len(rest) :]
        if waiting:
            self._selector.unregister(self._in)
        return rest

    def _receive(self, fd: int) -> bool:
        """Read what there is; False where the program has closed its end."""
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        if fd == self._out:
            self._answers += chunk
        else:
            self._errors = (self._errors + chunk)[-KEPT_BYTES:]
            if not chunk:
                self._selector.unregister(fd)
        return bool(chunk)

    def _died(self) -> ContenderError:
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return self._failure("it closed its standard output")
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        return self._failure(f"it ended with {how}")

    def _failure(self, what: str) -> ContenderError:
        # What it wrote last may still be in the pipe, which holds no more than one read takes.
        if self._err in self._selector.get_map():
            self._receive(self._err)
        lines = self._errors.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        self._stop()
        said = (
            f"its last line on standard error: {_quoted(last)}"
            if last
            else ("nothing on standard error")
        )
        return ContenderError(
            f"contender {self.command!r}, asked for `{self._asked}`: {what}; {said}"
        )

    def _stop(self) -> None:
        if self._end.alive:
            self._selector.close()
            self._end()


def _quoted(text: str) -> str:
    return repr(text if len(text) <= QUOTED else text[:QUOTED] + " ...")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the program with all that it has started, and close the pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
