"""Closed-loop forecasts after every epoch, against the stream of the saved model."""

import numpy as np
import pytest

import runs
from fastlstm.train.fit import prepared

STEPS = 30
LOOPED = {
    "series.generator.samples": 240,
    "closed_loop.steps": STEPS,
    "closed_loop.near": 10,
    "training.monitor": "closed_loop",
    "training.max_epochs": 6,
    "optimiser.learning_rate": 0.1,
}


def rmse(errors):
    return float(np.sqrt(np.mean(np.square(errors))))


@pytest.fixture(scope="module")
def looped(tmp_path_factory):
    return runs.quick(runs.small(**LOOPED), tmp_path_factory.mktemp("looped") / "run")


def test_the_best_epoch_is_the_one_of_the_best_closed_loop(looped):
    far = runs.column(looped, "closed_loop_all")
    assert looped.metrics["best_epoch"] == np.argmin(far)
    assert np.argmin(far) != np.argmin(runs.column(looped, "validation_loss"))
    found = looped.metrics["closed_loop"]
    assert found["rmse"] == far.min()
    assert found["near_rmse"] == runs.column(looped, "closed_loop_near")[np.argmin(far)]
    assert (found["near_steps"], found["steps"]) == (10, STEPS)


def test_its_errors_are_those_of_the_saved_model_s_stream(looped):
    """From the end of the validation part less 30 steps, after all that comes before."""
    noise = np.random.default_rng(0).standard_normal(240)
    values = np.sin(2 * np.pi * np.arange(240) / 40) + 0.02 * noise
    end = round(240 * 0.85) - STEPS
    stream = looped.model.stream()
    # The forecast's first value is the answer to the last sample.
    first = stream.run(values[:end, None].astype(np.float32))[-1:]
    rest = stream.forecast(STEPS - 1)
    errors = np.concatenate([first, rest])[:, 0] - values[end : end + STEPS]
    found = looped.metrics["closed_loop"]
    assert found["rmse"] == pytest.approx(rmse(errors), rel=1e-4)
    assert found["near_rmse"] == pytest.approx(rmse(errors[:10]), rel=1e-4)


def test_what_lies_beyond_the_sequences_is_the_truth_where_there_is_any():
    recipe = runs.load_recipe(
        "sine",
        overrides={
            **{k: v for k, v in runs.SMALL.items() if not k.startswith("series.")},
            "series.generator": {
                "kind": "waves",
                "sequences": 10,
                "samples": 80,
                "period": 5,
                "beyond": 25,
            },
            "series.split": {"train": 6, "validation": 3, "test": 1, "by": "sequence"},
            "closed_loop.steps": 20,
        },
    )
    task = prepared(recipe)
    loop = task.closed_loop
    assert loop.rows.tolist() == [list(range(80 * k, 80 * k + 80)) for k in (6, 7, 8)]
    last = task.inputs[loop.rows[:, -2:], 0].numpy() * loop.deviation.numpy() + loop.mean.numpy()
    # Each wave goes on where it ended.
    known = np.concatenate([last, loop.truth[..., 0]], axis=1)
    later = known[:, 2:] + known[:, :-2]
    # Of any sine of one period, x[t + 1] + x[t - 1] = 2 cos(1 / period) x[t].
    np.testing.assert_allclose(later, 2 * np.cos(1 / 5) * known[:, 1:-1], atol=1e-5)
    assert np.ptp(known[:, 0]) > 0.1


def test_a_network_that_forecasts_the_truth_has_no_error():
    task = prepared(runs.small(**LOOPED))
    assert task.closed_loop.errors(task.closed_loop.truth) == (0.0, 0.0)
    off = task.closed_loop.truth.copy()
    off[:, 10:] += 3.0
    assert task.closed_loop.errors(off) == (0.0, pytest.approx(3 * np.sqrt(20 / 30)))
