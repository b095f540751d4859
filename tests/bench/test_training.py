"""The training bench: bare loops that train what we train, and what it writes."""

import json

import pytest
import torch

from fastlstm.bench import gpu_training, training
from fastlstm.errors import FastLSTMError

BALL = {
    **training.BALL,
    "series": {
        **training.BALL["series"],
        "generator": {"kind": "ball", "sequences": 40},
        "split": {"train": 30, "validation": 5, "test": 5, "by": "sequence"},
    },
    "training": {"batch_size": 10, "gradient_clip": 0.0},
}
WAVES = {
    **training.WAVES,
    "series": {
        **training.WAVES["series"],
        "generator": {"kind": "waves", "sequences": 6, "samples": 30, "period": 5},
        "split": {"train": 4, "validation": 1, "test": 1, "by": "sequence"},
    },
}


@pytest.mark.parametrize("document", [BALL, WAVES], ids=["ball", "waves"])
def test_bare_loops_with_our_losses_are_timed(document):
    """A loop with other losses is refused, so that these are timed is that they agree."""
    rows = training.measure(document, 2)
    assert [row.loop for row in rows] == [training.OURS, training.PLAIN, training.FASTEST]
    assert rows[0].ratio == 1.0
    assert {row.steps for row in rows} == {3 if document is BALL else 2}
    assert all(row.median_ms > 0 for row in rows)


def test_a_loop_that_trains_something_else_is_not_timed(monkeypatch):
    def other(task):
        loop = plain_loop(task)
        loop.optimiser.param_groups[0]["lr"] = 0.5
        return loop

    plain_loop = training.plain_loop
    monkeypatch.setattr(training, "plain_loop", other)
    with pytest.raises(FastLSTMError, match=r"ball: bare torch has a loss of .* so not timed"):
        training.measure(BALL, 1)


def test_the_figures_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "BALL", BALL)
    target = tmp_path / "new" / "training.json"
    arguments = ["--only", "ball", "--rounds", "2", "--json", str(target)]
    assert training.main(arguments) == 0
    written = json.loads(target.read_text())
    assert written["rows"][0]["loop"] == training.OURS
    assert written["machine"]["versions"]["torch"]
    assert f"{written['rows'][1]['median_ms']:.3f}" in capsys.readouterr().out


def test_without_a_gpu_nothing_is_written(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    target = tmp_path / "gpu_training.json"
    assert gpu_training.main(["--json", str(target)]) == 0
    assert "no CUDA device" in capsys.readouterr().out
    assert not target.exists()
