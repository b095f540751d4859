"""Start-up: programs whose machine code a C++ compiler makes compute the reference's numbers."""

import shutil

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.bench.startup.processes import start
from fastlstm.bench.startup.program_list import PROGRAMS
from fastlstm.bench.startup.shipped_files import ShippedFiles
from fastlstm.model import Model
from fastlstm.verify import truth

# As small as it gets: it is compiled at each run of the test.
CHAIN = Model((cases.recurrent("LSTM", 2, 4, seed=1, initial=True), cases.dense(4, 1)))


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler found")
# What torch.compile makes machine code of is tested without it in test_start_programs.py.
@pytest.mark.parametrize(
    "name", ["AOTInductor", pytest.param("torch.compile", marks=pytest.mark.slow)]
)
def test_a_compiled_program_computes_the_reference(name, tmp_path):
    pytest.importorskip("torch")
    (program,) = (program for program in PROGRAMS if program.name == name)
    path, reason = ShippedFiles(CHAIN, tmp_path).file(program.ships)
    assert reason == ""
    x = np.random.default_rng(5).standard_normal((30, 2)).astype(np.float32)
    np.save(tmp_path / "input.npy", x)
    environment = {program.cache: str(tmp_path / "cache")} if program.cache else {}
    arguments = (str(path), str(tmp_path / "input.npy"), "steps")
    answer = start(program.script, arguments, environment, clock=lambda: 0)
    true = truth(CHAIN, x)
    assert np.abs(np.array(answer.figures["outputs"]) - true.output).max() <= true.bound
    # A program that forgot the state would be seen.
    forgetful = np.concatenate([reference.run(CHAIN, sample[None]) for sample in x])
    assert np.abs(forgetful - true.output).max() > 100 * true.bound
    if program.cache:
        assert any((tmp_path / "cache").rglob("*.so"))
