"""One program in a process of its own: started, timed to its first output, asked, and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

SCRIPT = Path(__file__).with_name("first_output.py")
# torch.compile compiles C++ before its first output, on a slow machine for minutes.
LIMIT_S = 300.0
# What a process may still do after its last answer, such as removing its temporary files.
GRACE_S = 10.0
LONGEST_REASON = 300


class ProgramFailed(Exception):
    """A program gave no answer; the message says why, as the note of a table."""


@dataclass(frozen=True)
class Answer:
    """`seconds` from the start of the process to its first output (O,), and what it said then."""

    seconds: float
    first: NDArray[np.float64]
    figures: Mapping[str, Any]


def start(
    program: Path,
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    *,
    clock: Callable[[], int],
    limit_s: float = LIMIT_S,
) -> Answer:
    """Run first_output.py with this program and its other arguments; the process is ended for sure.

    `environment` is added to that of this process. Raises ProgramFailed.
    """
    command = [sys.executable, "-P", str(SCRIPT), str(program), *arguments]
    with tempfile.TemporaryFile() as errors:
        begin = clock()
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            # A group of its own, so that compilers which it started end with it.
            start_new_session=True,
        )
        late = threading.Event()

        def end_late() -> None:
            late.set()
            _end_group(process)

        timer = threading.Timer(limit_s, end_late)
        timer.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            end = clock()
            # A program that fails says so in its only line.
            answer = line if line.startswith(b"{") else process.stdout.readline()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        finally:
            timer.cancel()
            timer.join()
            _end_group(process)
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
        if not answer.endswith(b"\n"):
            if late.is_set():
                raise ProgramFailed(f"failed: gave no answer within {limit_s:g} s and was ended")
            raise ProgramFailed(f"failed: its process ended with {_ending(process, errors)}")
    figures = json.loads(answer)
    if reason := figures.get("failed"):
        kind = "unsupported" if figures.get("unsupported") else "failed"
        raise ProgramFailed(f"{kind}: {_short(reason)}")
    return Answer((end - begin) / 1e9, np.array(line.split(), np.float64), figures)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started, where any of them is still there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _ending(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    """How a process ended that gave no answer, and its last words."""
    code = process.returncode
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines()
    return how + (f": {_short(said[-1])}" if said else "")


def _short(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 3] + "..."
