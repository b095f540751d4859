"""The ready recipes that need no data reach the errors they are made for."""

import numpy as np
import pytest
import torch

from fastlstm.train import load_recipe
from fastlstm.train.network import Network
from runs import quick

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "bound"),
    [("sine", 0.01), ("cosine", 0.02), ("cosine-fine", 0.005), ("last-step", 0.01)],
)
def test_the_held_out_error(name, bound, tmp_path):
    metrics = quick(load_recipe(name), tmp_path).metrics
    assert metrics["before"]["rmse"] > 10 * metrics["rmse"]
    assert metrics["rmse"] < bound
    # So short a step hardly moves a cosine: its plain recipe does not come up to the last value.
    if name != "cosine":
        assert metrics["rmse"] < metrics["naive_rmse"]


def test_the_fine_cosine_needs_but_ten_values(tmp_path):
    network = Network.from_model(quick(load_recipe("cosine-fine"), tmp_path).model).double()
    y = np.cos(0.01 * np.arange(11_000))
    windows = np.stack([y[t - 10 : t] for t in range(10_000, 11_000)])
    with torch.inference_mode():
        predicted = network(torch.from_numpy(windows)[..., None])[0][:, -1, 0].numpy()
    assert np.sqrt(np.mean((predicted - y[10_000:]) ** 2)) < 0.005
