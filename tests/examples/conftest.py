"""The program of examples/contender, built in each way that its tests need."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from fastlstm.bench.contenders.pipe_process import ContenderProcess

SOURCES = Path(__file__).parents[2] / "examples" / "contender"
SANITIZE = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"


def make(path, *variables):
    """Build the program there, or skip; the exit code, and what was said."""
    for tool in ("make", "cc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} not found: install a C compiler and make")
    done = subprocess.run(
        ["make", "-s", "-C", SOURCES, f"PROGRAM={path}", *variables],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.fixture(scope="session")
def c_contender(tmp_path_factory):
    path = tmp_path_factory.mktemp("contender") / "contender"
    assert make(path, "CFLAGS=-O3 -march=native -Werror") == (0, "")
    return path


@pytest.fixture(scope="session")
def strict_c_contender(tmp_path_factory):
    path = tmp_path_factory.mktemp("contender") / "strict"
    assert make(path, "CFLAGS=-O1 -Werror", "MATH=") == (0, "")
    return path


@pytest.fixture
def guarded_process(tmp_path, monkeypatch):
    """One that ends at the first byte read or written beyond an array, with the reason."""
    path = tmp_path / "guarded"
    code, said = make(path, f"CFLAGS={SANITIZE}", "MATH=")
    if code:
        pytest.skip(f"cc has no sanitizers here: {said.splitlines()[-1]}")
    monkeypatch.setenv("ASAN_OPTIONS", "allocator_may_return_null=1")
    process = ContenderProcess(shlex.quote(str(path)))
    process.ask("hello 1")
    yield process
    process.close()
    assert process._process.returncode == 0, process._errors.decode()
