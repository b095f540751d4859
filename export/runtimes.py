"""What it takes to run one exported ONNX file in a foreign runtime, whichever runtime it is.

The runtimes are listed in runtime_list.py; matrix.py holds them against the reference.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

from fastlstm.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

# A refusal is quoted in a table's footnote: so many characters of the runtime's own words.
LONGEST_REASON = 300


class Runner(Protocol):
    """One ONNX file, loaded in one runtime."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One call: every input of the graph by name -> every output by name, fresh arrays.

        Inputs are float32, but for `lengths` (int32). Shapes may differ from call to call. Raises
        UnsupportedError where the runtime refuses the graph only now.
        """

    def close(self) -> None:
        """Let go of what the runtime holds, such as a process; calling it again does nothing."""


@dataclass(frozen=True)
class Runtime:
    """One runtime: how a graph is loaded into it, what it lacks here, and which one it is.

    `load` takes the bytes of an .onnx file; it raises UnsupportedError, in the runtime's own
    words, where the runtime refuses the graph. `missing` says what has to be installed first,
    and nothing ("") where all is there; `version` may be asked only then. `how` says in a few
    words how it is run here.
    """

    name: str
    load: Callable[[bytes], Runner]
    missing: Callable[[], str]
    version: Callable[[], str]
    how: str = ""


def not_installed(*modules: str) -> Callable[[], str]:
    """A `missing` for a runtime that is a Python package, by the names that it is imported by."""

    def missing() -> str:
        absent = [name for name in modules if importlib.util.find_spec(name) is None]
        if not absent:
            return ""
        return f"{', '.join(absent)} not installed: pip install 'fastlstm[runtimes]'"

    return missing


def version_of(*distributions: str) -> Callable[[], str]:
    """A `version` for a Python package: of the first of these distributions that is installed."""

    def version() -> str:
        for name in distributions:
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return "unknown"

    return version


def refusal(runtime: str, words: object) -> UnsupportedError:
    """The error for a graph that a runtime refuses: its own words on one short line."""
    line = " ".join(str(words).split())
    if len(line) > LONGEST_REASON:
        line = line[: LONGEST_REASON - 3] + "..."
    return UnsupportedError(f"{runtime}: {line}")
