"""Two processes train to the loss curve of one, and write each file once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import runs
from fastlstm.errors import RecipeError
from fastlstm.train.recipe import to_toml, variant_of

# A batch's mean is put together from two halves, which moves its last bits: 6e-8 of it in float32,
# which the dozen steps of these runs carry on.
BOUND = 1e-6

BALLS = {
    "series": {
        "generator": {"kind": "ball", "sequences": 30},
        "split": {"train": 17, "validation": 7, "test": 6, "by": "sequence"},
    },
    "windows": {"length": 0, "warm_up": 2, "stride": 1},
    # 17 windows in batches of 8: of the last batch there is one window for two processes.
    "training": {"batch_size": 8, "average_weights": 0.0},
}
# Thirty-two batches an epoch: two groups of them, in small steps.
MANY = {
    "training": {"batch_size": 2, "average_weights": 0.0},
    "optimiser": {"learning_rate": 1e-4, "schedule": "one_cycle"},
}
EQUAL = {"training.batch_size": 21, "training.max_epochs": 4, "training.average_weights": 0.5}


def trained(arguments, folder):
    """Run `fastlstm train` in a process of its own; return what it said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, Path(sys.executable).with_name("fastlstm"), "train", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs torch with gloo")
def test_two_processes_give_the_losses_of_one(tmp_path):
    """Windows of one length, packed sequences and many batches, in one command."""
    pytest.importorskip("typer", reason="needs typer and rich: pip install 'fastlstm[cli]'")
    recipe = runs.small(**EQUAL, variants={"equal": {}, "packed": BALLS, "many": MANY})
    (tmp_path / "both.toml").write_text(to_toml(recipe))
    done = trained(["both.toml", "--devices", "2", "--device", "cpu", "--out", "out"], tmp_path)
    # One process speaks.
    assert done.stdout.count("Files to look at") == 1
    for name in recipe.variants:
        one = runs.quick(variant_of(recipe, name), tmp_path / name)
        two = type("Run", (), {"folder": tmp_path / "out" / name})
        for kind in ("train_loss", "validation_loss"):
            ours, theirs = runs.column(two, kind), runs.column(one, kind)
            np.testing.assert_allclose(ours, theirs, rtol=BOUND)
        assert {p.name for p in two.folder.iterdir()} >= {p.name for p in one.folder.iterdir()}
        assert not list(two.folder.rglob("*.part"))
        assert not (two.folder / "unfinished").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"optimiser.name": "lbfgs"}, r"optimiser\.name lbfgs .* found training\.devices 2"),
        (
            {"windows.stateful": True, "windows.stride": 1},
            r"windows\.stateful walks .* found training\.devices 2 on training\.nodes 1: set both",
        ),
    ],
)
def test_what_one_process_alone_can_do_is_refused(overrides, words):
    with pytest.raises(RecipeError, match=words):
        runs.small(**overrides, **{"training.devices": 2})
