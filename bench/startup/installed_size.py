"""What has to be installed for a program, in bytes: the files of the distributions that it uses.

A distribution counts if it is one that the program imports, or that such a one requires, directly
or not, without an extra; and if the process did use it: it imported a module of it, or has one of
its shared libraries mapped. So a library that is optional, or required but never touched, is in no
figure. Of a distribution all recorded files count, tests and headers too, but no byte code. Python
itself does not count.
"""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import fastlstm
import fastlstm.bench
import fastlstm.export

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

OURS = "fastlstm"
BYTE_CODE = "__pycache__"
# A requirement begins with the distribution's name; an extra's has the word behind its `;`.
NAME = re.compile(r"[A-Za-z0-9._-]+")
EXTRA = re.compile(r";.*\bextra\b")


class Installed:
    """What is installed in this Python, looked up once for all programs."""

    def __init__(self) -> None:
        """Ask for the names of all distributions."""
        self._homes = metadata.packages_distributions()
        self._bytes: dict[str, int] = {}

    def size(
        self, imports: Iterable[str], modules: Collection[str], libraries: Collection[str]
    ) -> int:
        """Bytes of all that a program needs and uses.

        `imports` are the modules that it imports itself; `modules` are the top-level names of all
        that its process imported, and `libraries` the paths of all files that it mapped.
        """
        return sum(map(self._size_of, self.used(imports, modules, libraries)))

    def used(
        self, imports: Iterable[str], modules: Collection[str], libraries: Collection[str]
    ) -> list[str]:
        """The names of the distributions that `size` adds up, sorted."""
        imported = {_plain(home) for name in modules for home in self._homes.get(name, ())}
        roots = {_plain(home) for name in imports for home in self._homes.get(name, ())}
        mapped = {str(Path(path)) for path in libraries if ".so" in path}
        return sorted(
            name
            for name in _with_requirements(roots)
            if name in imported or not mapped.isdisjoint(_paths(name))
        )

    def _size_of(self, name: str) -> int:
        if name not in self._bytes:
            self._bytes[name] = sum(_size(Path(path)) for path in _paths(name))
        return self._bytes[name]


def _with_requirements(roots: Iterable[str]) -> set[str]:
    """These distributions, and the installed ones that they require without an extra."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another system, or another Python
            continue
        found.add(name)
        for line in required:
            if not EXTRA.search(line) and (match := NAME.match(line)):
                waiting.append(_plain(match[0]))
    return found


def _paths(name: str) -> list[str]:
    """The recorded files of a distribution, without byte code; all of ours if it is editable."""
    distribution = metadata.distribution(name)
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if name == OURS and origin.get("dir_info", {}).get("editable"):
        packages = {Path(p.__path__[0]) for p in (fastlstm, fastlstm.export, fastlstm.bench)}
        return [
            str(path)
            for package in packages
            for path in package.rglob("*")
            if path.is_file() and path.suffix in (".py", ".toml", ".mjs", ".c")
        ]
    return [
        str(Path(str(file.locate())).resolve())
        for file in distribution.files or ()
        if BYTE_CODE not in file.parts
    ]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # recorded, but removed since
        return 0


def _plain(name: str) -> str:
    """A distribution's name in the spelling that is the same for all."""
    return re.sub(r"[-_.]+", "-", name).lower()
