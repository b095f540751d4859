"""Compile all that a model needs before it is needed, such as while a container is built.

A stream does with code that could not be kept on disk; here that is an error.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from fastlstm.compiled import compiled
from fastlstm.errors import CacheError, ModelError
from fastlstm.kernels import cache
from fastlstm.kernels.calls import Calls
from fastlstm.kernels.network import Network
from fastlstm.model import Model
from fastlstm.sequence import chains

if TYPE_CHECKING:
    from pathlib import Path


class Function(NamedTuple):
    """One compiled function on disk."""

    name: str
    path: Path
    size_bytes: int
    #: Compiled by this call; if not, it was on disk before.
    compiled: bool


class Warmup(NamedTuple):
    """Where the machine code of a model lies, and what it took to have it there."""

    folder: Path
    functions: tuple[Function, ...]
    cpu: str  #: The CPU that the code is for, in LLVM's words; another one compiles its own.
    seconds: float


def warmup(model: Model) -> Warmup:
    """Have on disk all that `model` needs, compiled for this CPU: its streams compile nothing then.

    Raises CacheError where the folder cannot be written and the code is not there yet.
    """
    if not isinstance(model, Model):
        raise ModelError(f"warmup: expected a fastlstm Model, found {type(model).__name__}")
    begin = perf_counter()
    before = dict(cache.kept)
    plans = set()
    try:
        folder = _folder()
        with cache.required():
            for chain in chains(model):
                plans.add(repr(compiled(chain).plan))
    except OSError as error:
        raise CacheError(f"{_PROBLEM} ({error}): {_REMEDY}") from None
    after = dict(cache.kept)
    functions = []
    # What all networks share, then the networks: several where a layer is bidirectional.
    needed = [(name, "") for name in Calls._fields]
    needed += [(f"network_{name}", plan) for plan in sorted(plans) for name in Network._fields]
    for name, plan in needed:
        kept = after.get((name, plan))
        if kept is None or kept.path.parent != folder or not kept.path.is_file():
            raise CacheError(f"{_PROBLEM}: {folder} lacks {name}, {_AGAIN}")
        new = kept.compiled and before.get((name, plan)) != kept
        functions.append(Function(name, kept.path, kept.path.stat().st_size, new))
    return Warmup(folder, tuple(functions), cache.cpu_name(), perf_counter() - begin)


def _folder() -> Path:
    try:
        return cache.cache_folder()
    except RuntimeError as error:  # a user without a home folder
        raise OSError(str(error)) from None


_PROBLEM = "compiled kernels cannot be kept on disk"
_REMEDY = "make that folder writable, or set FASTLSTM_CACHE_DIR to one that is"
_AGAIN = "which this process compiled earlier: call warmup in a new process"
