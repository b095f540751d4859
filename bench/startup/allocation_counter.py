"""The library that counts calls of malloc and its kin: compiled when it is needed, or not at all.

What it counts: malloc, calloc, realloc, memalign, posix_memalign and aligned_alloc, of all threads,
from C, C++ and compiled code. Python's own objects are among them, because the process that is
counted runs with PYTHONMALLOC=malloc. NumPy keeps a few small blocks for its next arrays, and a
library may have an allocator of its own (OpenVINO has tbbmalloc): what these hand out again without
asking malloc is not counted, and is no call of malloc.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("count_allocations.c")
COMPILERS = ("cc", "gcc", "clang")


def build_counter(folder: Path) -> Path | None:
    """The library, compiled into `folder`; None without a C compiler that can, or not on Linux.

    The compiler is that of the environment variable CC, or cc, gcc or clang.
    """
    if sys.platform != "linux":
        return None
    named = shlex.split(os.environ.get("CC", ""))
    for compiler in [named] if named else [[name] for name in COMPILERS]:
        if shutil.which(compiler[0]) is None:
            continue
        library = folder / "count_allocations.so"
        options = ("-O2", "-fPIC", "-shared", "-o", str(library), str(SOURCE), "-ldl")
        done = subprocess.run([*compiler, *options], capture_output=True, check=False)
        if done.returncode == 0:
            return library
    return None


def counting(library: Path) -> dict[str, str]:
    """The environment variables of a process that is counted."""
    before = os.environ.get("LD_PRELOAD", "")
    return {
        "LD_PRELOAD": f"{library} {before}".strip(),
        "PYTHONMALLOC": "malloc",
    }
