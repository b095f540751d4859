"""A run that is cut off at any point goes on, to the bit, as the run that was never cut off."""

import csv
import errno
import os
import signal
import subprocess
import sys
from functools import cache

import pytest

import runs
from fastlstm.errors import RecipeError
from fastlstm.train import fit
from fastlstm.train.loop import Task, TrainingError
from fastlstm.train.recipe import to_toml

DROPPING = {
    "network.dropout": 0.2,
    "network.learned_initial_state": True,
    "training.level_shift": 0.5,
    "training.input_noise": 0.1,
    "network.layers": [
        {"kind": "GRU", "hidden_size": 4},
        {"kind": "RNN", "hidden_size": 3},
        {"kind": "Dense", "output_size": 1},
    ],
}
STATEFUL = {"windows.stateful": True, "windows.stride": 1, "training.batch_size": 3}
PLATEAU = {
    "optimiser.schedule": "plateau",
    "optimiser.plateau_patience": 1,
    "optimiser.learning_rate": 0.2,
    "training.max_epochs": 8,
}
# Twenty-two batches an epoch, more than one group of them, and a rate that falls before epoch 5.
GROUPS = {
    **PLATEAU,
    "training.batch_size": 3,
    "training.patience": 9,
}
KINDS = {
    "adam": DROPPING,
    "groups": GROUPS,
    "lbfgs": {
        "optimiser.name": "lbfgs",
        "optimiser.learning_rate": 0.5,
        "training.batch_size": 0,
        "training.gradient_clip": 0.0,
    },
    "plateau": PLATEAU,
    "stateful": STATEFUL,
    "averaged": {"training.average_weights": 0.9},
    "one cycle": {"optimiser.schedule": "one_cycle", "optimiser.name": "sgd"},
    "whole sequences": {
        "series.generator": {"kind": "ball", "sequences": 40},
        "windows": {"length": 0, "loss_at": "last"},
        "series.split": {"train": 0.6, "validation": 0.2, "test": 0.2, "by": "sequence"},
        "training.steps_per_epoch": 3,
        "training.batch_size": 5,
    },
}


def recipe_of(kind):
    overrides = dict(KINDS[kind])
    if "series.generator" in overrides:
        removed = ("series.generator.", "windows.")
        base = {k: v for k, v in runs.SMALL.items() if not k.startswith(removed)}
        return runs.load_recipe("sine", overrides={**base, **overrides})
    if overrides.get("optimiser.name") == "lbfgs":
        overrides["optimiser.schedule"] = "constant"
    return runs.small(**overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of each kind that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return cache(lambda kind: runs.quick(recipe_of(kind), folder / kind))


@pytest.mark.parametrize(
    ("kind", "epoch", "batch"), [(k, 3, 1) for k in KINDS] + [("adam", 2, 0), ("groups", 5, 18)]
)
def test_a_cut_run_resumes_as_if_nothing_had_been(whole, tmp_path, monkeypatch, kind, epoch, batch):
    """In the middle of an epoch, and between two."""
    with monkeypatch.context() as patch:
        # The whole batch is the first of its epoch.
        runs.cut_at(patch, epoch, 0 if kind == "lbfgs" else batch)
        with pytest.raises(runs.PowerCutError):
            runs.quick(recipe_of(kind), tmp_path / "cut")
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    runs.same_run(runs.quick(recipe_of(kind), tmp_path / "cut", resume=True), whole(kind))


# Killed while it trains, like a process that the system has no more memory for.
KILLED = """
import signal, sys, os
sys.path.insert(0, sys.argv[1])
import runs
from fastlstm.train.loop import Task

write = Task.write_history
def kill(task):
    write(task)
    if len(task.history) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Task.write_history = kill
for k, name in enumerate(sys.argv[2:]):
    if os.fork() == 0:
        runs.quick(runs.load_recipe(name + ".toml"), name)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_process_resumes_as_if_nothing_had_been(whole, tmp_path):
    """After the third epoch's history row, before its checkpoint: the epoch is trained again."""
    names = ["adam", "lbfgs", "plateau", "stateful", "averaged"]
    for name in names:
        (tmp_path / f"{name}.toml").write_text(to_toml(recipe_of(name)))
    tests = os.path.dirname(runs.__file__)
    subprocess.run([sys.executable, "-c", KILLED, tests, *names], cwd=tmp_path, check=True)
    for name in names:
        assert not (tmp_path / name / "model.safetensors").exists()
        with (tmp_path / name / "unfinished" / "history.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 3
        runs.same_run(runs.quick(recipe_of(name), tmp_path / name, resume=True), whole(name))


def test_ctrl_c_stops_the_run_and_not_the_process(tmp_path, monkeypatch, capsys):
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        runs.cut_at(patch, 2, error=KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(runs.small(), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is handler
    assert "stopped after 2 epochs; resume to go on" in capsys.readouterr().err
    assert runs.quick(runs.small(), tmp_path / "run", resume=True).metrics["epochs"] == 5


# So large a step that the loss soon wanders: the best epoch is not the last one.
WANDERING = {
    "training.max_epochs": 12,
    "training.patience": 3,
    "optimiser.learning_rate": 0.2,
    "optimiser.schedule": "constant",
}


def test_early_stopping_counts_on_through_a_cut(tmp_path, monkeypatch):
    recipe = runs.small(**{**WANDERING, "training.max_epochs": 200})
    whole = runs.quick(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        # In the middle of the epochs that bring no improvement.
        runs.cut_at(patch, whole.metrics["epochs"] - 2)
        with pytest.raises(runs.PowerCutError):
            runs.quick(recipe, tmp_path / "cut")
    runs.same_run(runs.quick(recipe, tmp_path / "cut", resume=True), whole)


def test_a_finished_run_may_be_moved_and_go_on_when_it_may_last_longer(tmp_path):
    longer = runs.small(**WANDERING)
    whole = runs.quick(longer, tmp_path / "one")
    for epochs in (2, 5):
        short = runs.small(**{**WANDERING, "training.max_epochs": epochs})
        runs.quick(short, tmp_path / f"here{epochs}")
        (tmp_path / f"here{epochs}").rename(tmp_path / f"there{epochs}")
        resumed = runs.quick(longer, tmp_path / f"there{epochs}", resume=True)
        assert resumed.metrics["best_epoch"] == whole.metrics["best_epoch"]
        runs.same_run(resumed, whole)


def test_resume_says_what_is_missing_changed_or_damaged(tmp_path):
    with pytest.raises(
        TrainingError, match="nothing to resume: no run here has completed an epoch"
    ):
        runs.quick(runs.small(), tmp_path / "empty", resume=True)
    done = runs.quick(runs.small(), tmp_path / "run")
    changed = runs.small(**{"training.seed": 3, "optimiser.learning_rate": 0.5})
    with pytest.raises(
        RecipeError,
        match=r"started with another recipe; changed: optimiser\.learning_rate, training\.seed; ",
    ):
        runs.quick(changed, done.folder, resume=True)
    assert not (done.folder / "unfinished").exists()
    before = runs.model_bytes(done)
    last = done.folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"last\.ckpt: cannot be read: .* without resuming"):
        runs.quick(runs.small(), done.folder, resume=True)
    assert runs.model_bytes(done) == before


def test_a_full_disk_leaves_the_checkpoint_before_whole(whole, tmp_path, monkeypatch):
    """Files may not grow past 4 kB from the third epoch on: a checkpoint is larger."""
    resource = pytest.importorskip("resource", reason="needs a system that limits files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = tmp_path / "run" / "unfinished" / "checkpoints"
    before = {}
    step = Task.training_step

    def fill(task, *batch):
        if task.current_epoch == 3 and not before:
            before.update({path: path.read_bytes() for path in checkpoints.iterdir()})
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        return step(task, *batch)

    recipe = recipe_of("averaged")
    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", fill)
        try:
            with pytest.raises(TrainingError, match=r"unfinished: File too large: .* resume"):
                runs.quick(recipe, tmp_path / "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(before) == 2
    assert {path: path.read_bytes() for path in checkpoints.iterdir()} == before
    runs.same_run(runs.quick(recipe, tmp_path / "run", resume=True), whole("averaged"))


def test_a_full_disk_when_all_is_trained_costs_nothing(whole, tmp_path, monkeypatch):
    recipe = recipe_of("averaged")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("fastlstm.model.Model.save", full)
        with pytest.raises(TrainingError, match=r"No space left .*: make room and resume"):
            runs.quick(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    runs.same_run(runs.quick(recipe, tmp_path / "run", resume=True), whole("averaged"))
