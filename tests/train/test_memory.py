"""Freed memory is kept for the next step, and given back in the end."""

import subprocess
import sys

import pytest
import torch

from fastlstm.train import memory

PAGES = 64 * 2**20 // 4096
# In a process of its own: one that was once refused memory asks elsewhere for it ever after.
PROGRAM = """
import resource, torch
from fastlstm.train import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(64 * 2**20 // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = faults()
with memory.kept():
    faults()
    inside = faults()
print(outside, inside, faults())
"""


@pytest.mark.skipif(memory._glibc() is None, reason=f"no glibc on {sys.platform}")
def test_pages_are_made_once_inside_and_each_time_outside():
    """Pages that the system has to make while four arrays of 64 MiB come and go."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    outside, inside, after = map(int, done.stdout.split())
    if outside < 3 * PAGES:
        pytest.skip("huge pages: the system makes fewer than it hands out")
    assert inside < PAGES / 8
    # What was kept has been given back, so that it has to be made again.
    assert after > PAGES


def test_it_does_nothing_without_glibc(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with memory.kept():
        assert torch.ones(3).sum() == 3
