"""Start-up: what counts as installed for a program, on distributions made for the test."""

import os
from importlib import metadata
from pathlib import Path

import pytest

import fastlstm
from fastlstm.bench.startup.installed_size import Installed

# By name: requirements, and files with their sizes. Names that no real distribution has.
DISTRIBUTIONS = {
    "Zz-App": (
        ["zz.lib>=2", "zz_idle", "zz-native", "zz-extra; extra == 'more'", "zz-windows; os == 'x'"],
        {"zz_app/__init__.py": 1000, "zz_app/data.bin": 30, "zz_app/__pycache__/a.pyc": 7},
    ),
    "zz-lib": (["zz_deep (>=1)", "zz-app"], {"zzlib.py": 400}),
    "zz-deep": ([], {"zzdeep/__init__.py": 5000, "zzdeep/gone.py": 0}),
    "zz-idle": ([], {"zzidle.py": 90000}),
    "zz-native": ([], {"zz_native.libs/libzz.so.3": 800000}),
    "zz-extra": ([], {"zzextra.py": 600000}),
    "zz-other": ([], {"zzother.py": 1000000}),
}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed distributions, first on the path; hands out their metadata's sizes."""
    about = {}
    for name, (required, files) in DISTRIBUTIONS.items():
        spelled = name.replace("-", "_")
        for file, size in files.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes(b"#" * size)
        info = tmp_path / f"{spelled}-1.0.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
        lines += [f"Requires-Dist: {line}" for line in required]
        (info / "METADATA").write_text("\n".join(lines) + "\n\n")
        names = [*files, f"{info.name}/METADATA", f"{info.name}/RECORD"]
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in names))
        about[name.lower()] = sum(path.stat().st_size for path in info.iterdir())
    (tmp_path / "zzdeep" / "gone.py").unlink()
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path, about


def test_what_is_required_and_used_counts_once_and_nothing_else(site):
    folder, about = site
    installed = Installed()
    # zzother and zzextra were imported too, but nothing that the program needs requires them.
    modules = ["zz_app", "zzlib", "zzdeep", "zzother", "zzextra", "sys"]
    libraries = [str(folder / "zz_native.libs" / "libzz.so.3"), "/lib/libc.so.6"]
    used = ["zz-app", "zz-deep", "zz-lib", "zz-native"]
    assert installed.used(["zz_app"], modules, libraries) == used
    files = 1000 + 30 + 400 + 5000 + 800000
    assert installed.size(["zz_app"], modules, libraries) == files + sum(map(about.get, used))


def test_what_is_required_but_not_touched_does_not_count(site):
    assert Installed().used(["zz_app"], ["zz_app"], []) == ["zz-app"]


def test_a_module_that_no_distribution_brings_counts_nothing(site):
    assert Installed().size(["zz_no_such_module", "sys"], ["sys"], []) == 0


def test_our_own_package_counts_whole_and_numpy_by_the_size_of_its_folders():
    installed = Installed()
    ours = installed.size(["fastlstm"], ["fastlstm"], [])
    sources = sum(path.stat().st_size for path in Path(fastlstm.__file__).parent.rglob("*.py"))
    assert sources < ours < 10 * sources
    homes = [Path(str(metadata.distribution("numpy").locate_file("")))]
    found = 0
    for home in homes:
        for name in ("numpy", "numpy.libs", f"numpy-{metadata.version('numpy')}.dist-info"):
            for folder, _, files in os.walk(home / name):
                if "__pycache__" not in folder:
                    found += sum((Path(folder) / file).stat().st_size for file in files)
    # Beside them, only two short scripts.
    assert installed.size(["numpy"], ["numpy"], []) == pytest.approx(found, abs=2000)
