"""OpenCV's dnn module as a runtime, in a process of its own, so that a crash is a refusal."""

from __future__ import annotations

import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .runtimes import Runtime, not_installed, refusal, version_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

NAME = "OpenCV dnn"
SCRIPT = Path(__file__).with_name("opencv_process.py")
# A call takes milliseconds; what is silent for so long hangs.
SECONDS = 120.0
# What OpenCV puts before each error: its version, and the line of its source.
SOURCE_PLACE = re.compile(r"OpenCV\(\S+\) \S+: error: ")


class OpenCvRunner:
    """One graph in OpenCV's dnn module, behind a pipe."""

    def __init__(self, data: bytes) -> None:
        """Load the graph; raises UnsupportedError where OpenCV refuses it or crashes on it."""
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the runner
        # Not a fork: a thread that the parent holds a lock in would hang the child.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        try:
            self._ask("load", data)
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See Runner."""
        found: dict[str, NDArray[Any]] = self._ask("run", dict(feeds))
        return found

    def close(self) -> None:
        """End the process."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.kill()
        self.process.wait()
        self.errors.close()

    def _ask(self, kind: str, value: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        hanging = threading.Timer(SECONDS, self.process.kill)
        hanging.start()
        try:
            pickle.dump((kind, value), self.process.stdin)
            self.process.stdin.flush()
            verdict, answer = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise refusal(NAME, self._ending(kind)) from None
        finally:
            hanging.cancel()
        if verdict == "refused":
            raise refusal(NAME, SOURCE_PLACE.sub("", answer).strip(" >\n"))
        return answer

    def _ending(self, kind: str) -> str:
        """How the process ended, which should not have."""
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its process ended with {how} in {kind}" + (f": {said[-1]}" if said else "")


opencv = Runtime(
    NAME,
    OpenCvRunner,
    not_installed("cv2"),
    version_of("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "Python wheel; the engine that it chooses by itself, one thread, in a process of its own",
)
