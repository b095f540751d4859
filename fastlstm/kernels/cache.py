"""Machine code kept on disk, keyed by every kernel source, the CPU, and the versions that made it.

Numba's own cache looks only at the file of the outermost function, so an edited helper would
leave stale machine code in use. Here any change of any kernel source is another key.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import llvmlite
import numba
from numba.core import compiler, config
from numba.core.caching import _Cache
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from fastlstm.kernels.simd import NATIVE_WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHECKSUM_BYTES = 32

_DAY = 24 * 3600
# Each release and each CPU has files of its own, so those that nobody loads any more must go.
UNUSED_SECONDS = 90 * _DAY
# A process that is writing a file takes milliseconds; what is older was left by one that died.
ABANDONED_SECONDS = 3600
# Loading a file marks it as used, but writes to the folder no more than once in this time.
MARKED_SECONDS = _DAY

# The folder may hold other things: only what is named like this was made here. What follows the
# ending marks a file that is still being written.
_OURS = re.compile(r"[0-9a-f]{64}\.kernel(\.[0-9a-f]{32})?")


class Kept(NamedTuple):
    """A file of machine code, and whether this process compiled it or found it there."""

    path: Path
    compiled: bool


# What this process has on disk, by function and plan; for warmup.py.
kept: dict[tuple[str, str], Kept] = {}

_required = ContextVar("_required", default=False)


@contextmanager
def required() -> Iterator[None]:
    """Within this, code that cannot be kept on disk raises OSError instead of one warning."""
    token = _required.set(True)
    try:
        yield
    finally:
        _required.reset(token)


@cache
def kernel_sources_digest() -> str:
    """SHA-256 over the name and content of every kernel source."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        content = path.read_bytes()
        sha.update(f"{path.name} {len(content)} ".encode() + content)
    return sha.hexdigest()


def cache_folder() -> Path:
    """Where machine code is kept: FASTLSTM_CACHE_DIR, or fastlstm in the user's cache folder.

    Raises RuntimeError for a user without a home folder.
    """
    if chosen := os.environ.get("FASTLSTM_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fastlstm"


def cpu_name() -> str:
    """The CPU that Numba compiles for: this one, or what NUMBA_CPU_NAME says."""
    return str(cpu_target.target_context.codegen().magic_tuple()[1])


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
            path = self._path(signature, target_context)
            content = path.read_bytes()
        except (OSError, RuntimeError):  # RuntimeError: a user without a home folder
            return None
        checksum, payload = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
        if hashlib.sha256(payload).digest() != checksum:
            return None
        result = compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
        _mark_as_used(path)
        kept[self._function, self._plan] = Kept(path, compiled=False)
        return result

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a compiled function; a folder that cannot be written costs one warning."""
        payload = dumps(result._reduce())
        try:
            path = self._path(signature, result.target_context)
            where = path.parent
            _write(path, hashlib.sha256(payload).digest() + payload)
        except RuntimeError as error:  # a user without a home folder
            _not_kept(str(error))
        except OSError as error:
            _not_kept(f"{where}: {error.strerror}")
        else:
            kept[self._function, self._plan] = Kept(path, compiled=True)
            _prune(where)

    def _path(self, signature: Any, target_context: Any) -> Path:
        key = (
            self._function,
            self._plan,
            str(signature),
            kernel_sources_digest(),
            numba.__version__,
            llvmlite.__version__,
            # The build, not only the version: the kernels read Python's objects in memory.
            sys.implementation.name + sys.version,
            object.__basicsize__,
            # The CPU and its features, or what NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say of them.
            target_context.codegen().magic_tuple(),
            # What else changes the code: FASTLSTM_VECTOR_WIDTH, and Numba's own variables.
            NATIVE_WIDTH,
            config.OPT,
            config.LOOP_VECTORIZE,
            config.SLP_VECTORIZE,
            config.LLVM_REFPRUNE_PASS,
            config.BOUNDSCHECK,
            config.DEBUGINFO_DEFAULT,
        )
        return cache_folder() / (hashlib.sha256(repr(key).encode()).hexdigest() + ".kernel")


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: two processes may compile the same function at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are for one user alone, and what a container's build compiles as
    # root is loaded by another. Here the umask decides.
    temporary = path.with_name(f"{path.name}.{os.urandom(16).hex()}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _mark_as_used(path: Path) -> None:
    # A folder that is read-only, or another user's, is as good as any other to load from.
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > MARKED_SECONDS:
            os.utime(path)


def _prune(folder: Path) -> None:
    """Remove what nobody has used for long, and what writers that died have left behind.

    Processes read a file whole and at once, so none needs it afterwards.
    """
    now = time.time()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not (name := _OURS.fullmatch(entry.name)):
                continue
            limit = ABANDONED_SECONDS if name[1] else UNUSED_SECONDS
            # Each by itself: one that cannot be removed, or is gone already, keeps no other.
            with suppress(OSError):
                if now - entry.stat(follow_symlinks=False).st_mtime > limit:
                    os.unlink(entry.path)


_warned = threading.Event()


def _not_kept(problem: str) -> None:
    if _required.get():
        raise OSError(problem)
    if _warned.is_set():
        return
    _warned.set()
    warnings.warn(
        f"compiled kernels cannot be kept on disk ({problem}), so every process compiles them "
        "again; set FASTLSTM_CACHE_DIR to a writable folder",
        RuntimeWarning,
        stacklevel=2,
    )
