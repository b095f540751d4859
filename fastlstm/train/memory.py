"""Memory that one training step frees stays with the process for the next one.

glibc gives large blocks back to the system at once, and the next step has them zeroed anew, page
by page: with 97 sequences of 999 steps through two layers of 64 that was two fifths of the time.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# mallopt's parameters, from malloc.h, each with what is set meanwhile and glibc's own default.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEP = ((_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26), (_MMAP_MAX, 0))
_DEFAULT = ((_TRIM_THRESHOLD, 2**17), (_TOP_PAD, 2**17), (_MMAP_MAX, 2**16))


@contextmanager
def kept() -> Iterator[None]:
    """Keep freed memory inside the block, and give it back at its end. Nothing without glibc."""
    libc = _glibc()
    if libc is None:
        yield
        return
    try:
        for parameter, value in _KEEP:
            libc.mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _DEFAULT:
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
