"""Small training runs for the tests, and how what they leave behind is read."""

import csv
from unittest import mock

import numpy as np

from fastlstm.train import fit, load_recipe
from fastlstm.train.loop import Task

SMALL = {
    "series.generator.samples": 300,
    "series.generator.noise": 0.02,
    "windows.length": 20,
    "windows.warm_up": 4,
    "windows.stride": 3,
    "network.layers": [
        {"kind": "LSTM", "hidden_size": 4},
        {"kind": "Dense", "output_size": 1},
    ],
    "training.max_epochs": 5,
}


def small(**overrides):
    """The recipe "sine", made small; a sub-second run of ten batches."""
    return load_recipe("sine", overrides={**SMALL, **overrides})


def small_series():
    """What `small()` trains on, 210 samples of it, validating on 45 and testing on 45."""
    noise = np.random.default_rng(0).standard_normal(300)
    return np.sin(2 * np.pi * np.arange(300) / 40) + 0.02 * noise


def quick(recipe, folder, **options):
    """A run without a progress line and without pictures, which take longer than all the rest."""
    with (
        mock.patch.multiple("fastlstm.train.plots", **dict.fromkeys(PICTURES, mock.DEFAULT)),
        mock.patch("fastlstm.train.fit.plot_closed_loop"),
    ):
        return fit(recipe, folder, progress=False, **options)


PICTURES = ("plot_loss", "plot_forecast", "plot_fan", "plot_horizon")


def history(result):
    """The rows of history.csv, as text."""
    with (result.folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def column(result, name):
    """One column of history.csv, as numbers."""
    return np.array([float(row[name]) for row in history(result)])


def model_bytes(result):
    """The saved model, to the bit."""
    return (result.folder / "model.safetensors").read_bytes()


def same_run(one, other):
    """Assert that two runs left the same model, history and figures, but for the seconds."""
    assert history(one) == history(other)
    assert model_bytes(one) == model_bytes(other)
    ours, theirs = ({**run.metrics, "seconds": 0} for run in (one, other))
    assert ours == theirs


class PowerCutError(Exception):
    """What stands in for a sudden end."""


def cut_at(monkeypatch, epoch, after=0, error=PowerCutError):
    """Have training end in that epoch, after so many of its batches."""
    step, seen = Task.batch_loss, []

    def cut(task, *batch):
        if task.current_epoch == epoch:
            seen.append(epoch)
            if len(seen) > after:
                raise error
        return step(task, *batch)

    monkeypatch.setattr(Task, "batch_loss", cut)
