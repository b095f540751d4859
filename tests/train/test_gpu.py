"""Training on a CUDA device: the losses of the CPU, and cuDNN underneath."""

import numpy as np
import pytest
import torch

import runs
from fastlstm.train.fit import prepared

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# cuDNN adds a gate's products in another order than the CPU, and takes TF32 (a rounding of 5e-4)
# only where it is allowed, which it is not for float32 unless a user asks; ten steps of Adam
# multiply what a float32 rounding of 6e-8 leaves by some thousands.
BOUND = 1e-3


def test_the_losses_of_a_gpu_are_those_of_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    both = [
        runs.quick(runs.small(**{"training.accelerator": name}), tmp_path / name)
        for name in ("cpu", "gpu")
    ]
    for name in ("train_loss", "validation_loss"):
        ours, theirs = (runs.column(result, name) for result in both)
        np.testing.assert_allclose(ours, theirs, rtol=BOUND)
    assert both[0].metrics["rmse"] == pytest.approx(both[1].metrics["rmse"], rel=10 * BOUND)


@pytest.mark.parametrize("packed", [False, True])
def test_an_lstm_reaches_cudnn(packed):
    """The profiler names torch's entry to cuDNN, forward and backward."""
    overrides = {"windows.length": 0} if packed else {}
    if packed:
        overrides |= {"windows.warm_up": 0, "training.accelerator": "gpu"}
    task = prepared(runs.small(**overrides)).to("cuda")
    task.inputs, task.targets = task.inputs.cuda(), task.targets.cuda()
    (batch, _), *_ = task.train_dataloader()
    if packed:
        x, sizes = task.inputs[:12], torch.tensor([4, 4, 3, 1])
        run = lambda: task.network.packed(x, sizes)  # noqa: E731 - one of two
    else:
        run = lambda: task.forecasts(batch, task.inputs[batch.rows])  # noqa: E731
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run().square().mean().backward()
    names = {event.key for event in profile.key_averages()}
    assert "aten::_cudnn_rnn" in names
    assert "aten::_cudnn_rnn_backward" in names
