"""Machine code kept on disk, keyed by every kernel source, the CPU, and the versions that made it.

Numba's own cache looks only at the file of the outermost function, so an edited helper would
leave stale machine code in use. Here any change of any kernel source is another key.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import compiler, config
from numba.core.caching import _Cache
from numba.core.serialize import dumps

_CHECKSUM_BYTES = 32


@cache
def kernel_sources_digest() -> str:
    """SHA-256 over the name and content of every kernel source."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        content = path.read_bytes()
        sha.update(f"{path.name} {len(content)} ".encode() + content)
    return sha.hexdigest()


def cache_folder() -> Path:
    """Where machine code is kept: FASTLSTM_CACHE_DIR, or fastlstm in the user's cache folder."""
    if chosen := os.environ.get("FASTLSTM_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fastlstm"


class KernelCache(_Cache):
    """One compiled function, of one plan or of all, in a file of its own.

    The file holds a SHA-256 and Numba's serialised machine code. Like any program, it is as
    trustworthy as the folder it lies in: the user's own, never that of a model file.
    """

    def __init__(self, function: str, plan: str = "") -> None:
        self._function = function
        self._plan = plan

    @property
    def cache_path(self) -> str:
        return str(cache_folder())

    def enable(self) -> None:
        """Nothing to do; Numba's interface asks for it."""

    def disable(self) -> None:
        """Nothing to do; Numba's interface asks for it."""

    def flush(self) -> None:
        """Nothing to do; Numba's interface asks for it."""

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled function, or None where there is none or what is there is damaged."""
        # Some parts of Numba are set up only on the first use of a context.
        target_context.refresh()
        try:
            content = self._path(signature, target_context).read_bytes()
        except (OSError, RuntimeError):  # RuntimeError: a user without a home folder
            return None
        checksum, payload = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
        if hashlib.sha256(payload).digest() != checksum:
            return None
        return compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a compiled function; a folder that cannot be written costs one warning."""
        payload = dumps(result._reduce())
        try:
            path = self._path(signature, result.target_context)
        except RuntimeError as error:
            _warn_once(str(error))
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whole or not at all: two processes may compile the same function at once.
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(payload).digest() + payload)
                os.replace(temporary, path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            _warn_once(f"{path.parent}: {error.strerror}")

    def _path(self, signature: Any, target_context: Any) -> Path:
        key = (
            self._function,
            self._plan,
            str(signature),
            kernel_sources_digest(),
            numba.__version__,
            llvmlite.__version__,
            platform.python_implementation() + platform.python_version(),
            target_context.codegen().magic_tuple(),
            config.OPT,
        )
        return cache_folder() / (hashlib.sha256(repr(key).encode()).hexdigest() + ".kernel")


@cache
def _warn_once(problem: str) -> None:
    warnings.warn(
        f"compiled kernels cannot be kept on disk ({problem}), so every process compiles them "
        "again; set FASTLSTM_CACHE_DIR to a writable folder",
        RuntimeWarning,
        stacklevel=2,
    )
