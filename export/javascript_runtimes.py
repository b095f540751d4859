"""ONNX Runtime for Node.js, and ONNX Runtime Web in a real browser, as runtimes of a file.

Each is one child process, a script of javascript/, that lives from its first graph to the end of
this process: a browser takes seconds to start. It answers in time or is ended; nothing hangs.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ExportError

from .runtimes import Runtime, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

SCRIPTS = Path(__file__).with_name("javascript")
CHECKOUT = Path(__file__).parent.parent
NODE_MODULES, CHROMIUM = "FASTLSTM_NODE_MODULES", "FASTLSTM_CHROMIUM"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A call takes milliseconds and a browser seconds to start; what is silent for so long hangs.
SECONDS = 120.0
# The line of Node.js's report that says what was wrong.
ERROR = re.compile(r"\w*Error: ")
# Little-endian, which the arrays of JavaScript are wherever it runs.
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("float32", "int32", "int64")}


def package(name: str) -> Path | None:
    """The folder of an npm package, or None.

    It is looked for in FASTLSTM_NODE_MODULES, in node_modules of the current folder, and in a
    checkout where the examples have theirs.
    """
    named = os.environ.get(NODE_MODULES, "")
    folders = [Path(folder) for folder in named.split(os.pathsep) if folder]
    folders.append(Path("node_modules"))
    folders += [CHECKOUT / "examples" / example / "node_modules" for example in ("node", "browser")]
    for folder in folders:
        if (folder / name / "package.json").is_file():
            return (folder / name).resolve()
    return None


def browser() -> str | None:
    """Chromium's path: what FASTLSTM_CHROMIUM names, or else the first of BROWSERS; or None."""
    named = os.environ.get(CHROMIUM)
    if named:
        return shutil.which(named)
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Child:
    """One script in Node.js: a message in, an answer out, until `close`."""

    def __init__(self, name: str, command: list[str], seconds: float = SECONDS) -> None:
        """Start it and hear its version; raises ExportError where it does not come up."""
        self.name, self.seconds = name, seconds
        self.lock = threading.Lock()
        self.hung = False
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the child
        # A browser that is killed leaves its profile behind: here it goes with the child.
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "TMPDIR": self.folder.name},
        )
        try:
            self.version: str = self._answer(b"")["version"]
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        return not self.errors.closed and self.process.poll() is None

    def ask(self, **message: Any) -> dict[str, Any]:
        """The answer to a message, of which sessions.mjs has the list.

        Raises UnsupportedError for what ONNX Runtime refuses, in its own words, and ExportError
        for every other error, for a child that ends and for one that does not answer in time.
        """
        with self.lock:
            if not self.alive:
                raise ExportError(f"{self.name}: its process has ended; load the graph again")
            answer = self._answer(json.dumps(message).encode() + b"\n")
        if "error" in answer:
            if answer.get("refused"):
                raise refusal(self.name, answer["error"])
            raise ExportError(f"{self.name}: {answer['error']}")
        return answer

    def _answer(self, line: bytes) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        timer = threading.Timer(self.seconds, self._give_up)
        timer.start()
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            why = self._ending()
            self.close()
            raise ExportError(f"{self.name}: {why}") from None
        finally:
            timer.cancel()
        return answer

    def _give_up(self) -> None:
        self.hung = True
        self.process.kill()

    def _ending(self) -> str:
        """How the process ended, which should not have."""
        try:
            code = self.process.wait(2)
        except subprocess.TimeoutExpired:  # it wrote what is no answer, and lives
            self.process.kill()
            code = self.process.wait()
        if self.hung:
            return f"no answer within {self.seconds:g} s; its process was ended"
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reason = next(filter(ERROR.match, said), said[-1] if said else "")
        return f"its process ended with {how}" + (f": {reason.strip()}" if reason else "")

    def close(self) -> None:
        """End the process, and the browser that it drives; calling it again does nothing."""
        if self.errors.closed:
            return
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # The end of its input lets it close the browser, which removes its own files.
        with contextlib.suppress(OSError):  # it has ended, with something left to read
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        self.folder.cleanup()


class JavascriptRunner:
    """One graph in a child."""

    def __init__(self, child: Child, data: bytes) -> None:
        """Load the graph; raises UnsupportedError where ONNX Runtime refuses it."""
        self.child = child
        answer = child.ask(load=base64.b64encode(data).decode())
        self.session: int | None = answer["session"]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See Runner; ExportError for feeds that do not fit the graph's inputs."""
        values = {name: _packed(name, np.asarray(array)) for name, array in feeds.items()}
        outputs = self.child.ask(run=values, session=self.session)["outputs"]
        return {name: _unpacked(value) for name, value in outputs.items()}

    def close(self) -> None:
        """Let go of the session; the child stays for the next."""
        if self.session is not None and self.child.alive:
            self.child.ask(close=self.session)
        self.session = None


def _packed(name: str, array: NDArray[Any]) -> dict[str, Any]:
    dtype = DTYPES.get(array.dtype.name)
    if dtype is None:
        raise ExportError(
            f"input {name}: expected values of {', '.join(DTYPES)}; found {array.dtype}"
        )
    data = base64.b64encode(array.astype(dtype).tobytes()).decode()
    return {"dims": list(array.shape), "type": array.dtype.name, "data": data}


def _unpacked(value: dict[str, Any]) -> NDArray[Any]:
    flat = np.frombuffer(base64.b64decode(value["data"]), DTYPES[value["type"]])
    return flat.astype(value["type"]).reshape(value["dims"])


class Keeper:
    """Holds the one child of a runtime; starts it when it is first wanted, or after it has died."""

    def __init__(self, name: str, command: Callable[[str], list[str]], seconds: float = SECONDS):
        """`command` makes the child's command line from the path of Node.js."""
        self.name, self.command, self.seconds = name, command, seconds
        self._child: Child | None = None

    def child(self) -> Child:
        """The child, alive; raises ExportError where it does not start."""
        if self._child is None or not self._child.alive:
            self.close()
            node = shutil.which("node")
            if node is None:
                raise ExportError(f"{self.name}: {_no_node()}")
            self._child = Child(self.name, self.command(node), self.seconds)
            atexit.register(self._child.close)
        return self._child

    def load(self, data: bytes) -> JavascriptRunner:
        """See Runtime."""
        return JavascriptRunner(self.child(), data)

    def version(self) -> str:
        """Of ONNX Runtime and of what it runs in."""
        return self.child().version

    def close(self) -> None:
        """End the child; the next graph starts another."""
        if self._child is not None:
            atexit.unregister(self._child.close)
            self._child.close()
            self._child = None


def _no_node() -> str:
    return "" if shutil.which("node") else "node not found: install Node.js 20 or later"


def _lacks(example: str, *names: str) -> str:
    absent = [name for name in names if package(name) is None]
    if not absent:
        return ""
    return (
        f"{', '.join(absent)} not installed: in a checkout run npm ci --ignore-scripts in "
        f"examples/{example}, elsewhere npm install --ignore-scripts {' '.join(absent)}, or name a "
        f"folder node_modules in {NODE_MODULES}"
    )


def _lacks_browser() -> str:
    if browser():
        return ""
    named = os.environ.get(CHROMIUM)
    if named:
        return f"{CHROMIUM} names {named}, which cannot be run: name a Chromium, or unset it"
    return f"chromium not found: install it (Debian: apt-get install chromium), or set {CHROMIUM}"


def _missing_for_node() -> str:
    return _no_node() or _lacks("node", "onnxruntime-node")


def _missing_for_web() -> str:
    return _no_node() or _lacks("browser", "onnxruntime-web", "playwright-core") or _lacks_browser()


def _node_command(node: str) -> list[str]:
    return [node, str(SCRIPTS / "node_runner.mjs"), str(package("onnxruntime-node"))]


def _web_command(node: str) -> list[str]:
    packages = [str(package(name)) for name in ("onnxruntime-web", "playwright-core")]
    return [node, str(SCRIPTS / "web_runner.mjs"), *packages, str(browser())]


node_keeper = Keeper("ONNX Runtime for Node.js", _node_command)
web_keeper = Keeper("ONNX Runtime Web", _web_command)
node_runtime = Runtime(
    node_keeper.name,
    node_keeper.load,
    _missing_for_node,
    node_keeper.version,
    "npm package onnxruntime-node; CPU provider, one thread, every graph optimisation",
)
web_runtime = Runtime(
    web_keeper.name,
    web_keeper.load,
    _missing_for_web,
    web_keeper.version,
    "npm package onnxruntime-web; WebAssembly, one thread, in headless Chromium",
)
