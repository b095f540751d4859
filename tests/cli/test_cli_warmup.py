"""`fastlstm warmup`: what it prints, and a failing exit where nothing can be kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import fastlstm


def command(folder, *arguments):
    """In a process of its own: this one has compiled already."""
    return subprocess.run(
        [sys.executable, "-m", "fastlstm", "warmup", *map(str, arguments)],
        env=os.environ | {"FASTLSTM_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_tells_what_was_compiled_and_where_it_is_kept(run, model_file, tmp_path):
    folder = tmp_path / "kernels"
    first, second = (command(folder, model_file, model_file) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    files = list(folder.iterdir())
    size = sum(path.stat().st_size for path in files)
    for done, compiled in ((first, len(files)), (second, 0)):
        # The model is named twice, and compiled at most once.
        assert done.stdout.count(str(model_file)) == 2
        assert len(re.findall(r"^  compiled +\w+ +[\d,]+ bytes$", done.stdout, re.M)) == compiled
        there = re.findall(r"^  already there +\w+ +[\d,]+ bytes$", done.stdout, re.M)
        assert len(there) == 2 * len(files) - compiled
        assert f"kept in {folder}: {len(files)} files, {size:,} bytes" in done.stdout
        assert f"for the CPU {fastlstm.kernels.cache.cpu_name()}, in " in done.stdout


def test_where_nothing_can_be_kept_it_fails_in_one_line(run, model_file, tmp_path):
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    done = command(blocked, model_file)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: compiled kernels cannot be kept on disk ({blocked}: ")
    assert line.endswith("set FASTLSTM_CACHE_DIR to one that is")


def test_a_bad_file_costs_nothing(run, model_file, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no model")
    assert str(bad) in run("warmup", model_file, bad).error
    assert command(tmp_path / "kernels", model_file, bad).returncode == 1
    assert not (tmp_path / "kernels").exists()
