"""The built wheel: holds every package and data file, and works where the checkout is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Benchmarks of our own kernels, for who works on them: `make bench`.
NOT_INSTALLED = ROOT / "bench" / "suites"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: setuptools writes into the folder that it builds."""
    source = tmp_path_factory.mktemp("source")
    for folder in ("fastlstm", "export", "bench"):
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "*.part")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--no-index", "-w", out, source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def sources():
    """Every file that a user's installation needs, as the wheel must name it."""
    for folder, package in (
        ("fastlstm", "fastlstm"),
        ("export", "fastlstm/export"),
        ("bench", "fastlstm/bench"),
    ):
        for path in (ROOT / folder).rglob("*"):
            if NOT_INSTALLED in path.parents:
                continue
            if path.suffix in (".py", ".toml", ".mjs", ".c", ".j2") or path.name == "py.typed":
                yield f"{package}/{path.relative_to(ROOT / folder).as_posix()}"


def test_it_holds_every_source_recipe_and_type_marker_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert packed == set(sources())
    assert {
        "fastlstm/export/__init__.py",
        "fastlstm/bench/__init__.py",
        "fastlstm/py.typed",
    } <= packed
    assert any(n.startswith("fastlstm/train/recipes/") and n.endswith(".toml") for n in packed)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_its_metadata_asks_for_the_runtime_only(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    lines = archive.read(name).decode().splitlines()
    needed = [
        line for line in lines if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert sorted(line.split()[1].split(">")[0] for line in needed) == [
        "numba",
        "numpy",
        "safetensors",
    ]


def test_it_works_outside_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", site, wheel], check=True, capture_output=True)
    # -I drops the current folder and PYTHONPATH; the editable install must not answer instead.
    script = """
import sys
sys.path.insert(0, sys.argv[1])
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
from pathlib import Path
import numpy as np
import fastlstm, fastlstm.bench, fastlstm.export, fastlstm.cli
from fastlstm.train import ready_recipes
site = Path(sys.argv[1])
for module in (fastlstm, fastlstm.bench, fastlstm.export, fastlstm.cli):
    assert site in Path(module.__file__).parents, module.__file__
assert ready_recipes()
r = np.random.default_rng(0)
a = lambda *shape: r.standard_normal(shape).astype(np.float32)
fastlstm.Model((fastlstm.LSTM(a(12, 1), a(12, 3)),)).save("model.safetensors")
model = fastlstm.load("model.safetensors")
x = a(50, 1)
print(np.abs(model.stream().run(x) - fastlstm.reference.run(model, x)).max())
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, site],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-6
