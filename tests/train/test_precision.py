"""Other precisions than float32, and logs for TensorBoard."""

import sys

import numpy as np
import pytest
import torch

import runs
from fastlstm import model_file
from fastlstm.errors import MissingExtraError
from fastlstm.train.loop import TrainingError


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return runs.quick(runs.small(), tmp_path_factory.mktemp("single") / "run")


# Of sums of 16 x 32 squared errors: float32 rounds each to 6e-8, bfloat16 to 4e-3.
@pytest.mark.parametrize(("precision", "bound"), [("64", 1e-5), ("bf16-mixed", 0.02)])
def test_another_precision_trains_alike_and_saves_float32(single, tmp_path, precision, bound):
    result = runs.quick(runs.small(**{"training.precision": precision}), tmp_path / "run")
    for name in ("train_loss", "validation_loss"):
        ours, theirs = runs.column(result, name), runs.column(single, name)
        assert (ours != theirs).any()
        np.testing.assert_allclose(ours, theirs, rtol=bound)
    model = model_file.load(result.folder / "model.safetensors")
    assert {a.dtype for layer in model.layers for a in layer.arrays.values()} == {
        np.dtype(np.float32)
    }
    saved = torch.load(result.folder / "checkpoints" / "best.ckpt", weights_only=True)
    kept = {tensor.dtype for tensor in saved["state_dict"].values()}
    assert kept == {torch.float64 if precision == "64" else torch.float32}
    assert result.metrics["rmse"] == pytest.approx(single.metrics["rmse"], rel=2 * bound)


def test_half_precision_without_a_gpu_is_refused_with_what_to_do(tmp_path):
    recipe = runs.small(**{"training.precision": "16-mixed", "training.accelerator": "cpu"})
    with pytest.raises(TrainingError, match=r'"16-mixed" needs a gpu, .* set it to "bf16-mixed"'):
        runs.quick(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboard_logs_hold_the_history(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs tensorboardX: fastlstm[tensorboard]")
    result = runs.quick(runs.small(**{"training.tensorboard": True}), tmp_path / "run")
    (events,) = (result.folder / "logs").glob("events.out.tfevents.*")
    for name in ("train_loss", "validation_loss", "learning_rate"):
        expected = runs.column(result, name).tolist()
        assert scalars(events, name) == pytest.approx(expected, rel=1e-6)


def scalars(path, name):
    """The values of one tag, read with nothing but the layout of the file and its messages."""
    from tensorboardX.proto.event_pb2 import Event

    data, place, found = path.read_bytes(), 0, []
    while place < len(data):
        # Length, its checksum, the message and its checksum.
        size = int.from_bytes(data[place : place + 8], "little")
        event = Event.FromString(data[place + 12 : place + 12 + size])
        found += [v.simple_value for v in event.summary.value if v.tag == name]
        place += 12 + size + 4
    return found


def test_logs_without_their_package_name_the_extra(tmp_path, monkeypatch):
    # What ends in None cannot be imported; Lightning asks whether these are there, once.
    from lightning.pytorch.loggers import tensorboard

    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    for place in (tensorboard, sys.modules["lightning.fabric.loggers.tensorboard"]):
        for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
            if hasattr(place, name):
                monkeypatch.setattr(place, name, False)
    with pytest.raises(MissingExtraError, match=r"training\.tensorboard.*fastlstm\[tensorboard\]"):
        runs.quick(runs.small(**{"training.tensorboard": True}), tmp_path / "run")
