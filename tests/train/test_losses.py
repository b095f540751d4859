"""Every loss against numbers worked out by hand."""

import pytest
import torch

import runs
from fastlstm.train.losses import Pinball, loss_of, relative_error

# (windows, ahead, targets): errors 0.5, -2, 3 and 0.
TRUTH = torch.tensor([[[1.0, -2.0]], [[4.0, 0.0]]])
FORECAST = TRUTH + torch.tensor([[[0.5, -2.0]], [[3.0, 0.0]]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", (0.25 + 4 + 9 + 0) / 4),
        ("mae", (0.5 + 2 + 3 + 0) / 4),
        # Half the square up to 1, then |e| - 1/2.
        ("huber", (0.125 + 1.5 + 2.5 + 0) / 4),
        # |e| / (|truth| + 0.5)
        ("relative", (0.5 / 1.5 + 2 / 2.5 + 3 / 4.5 + 0) / 4),
    ],
)
def test_a_loss_by_hand(name, expected):
    recipe = runs.small(**{"training.loss": name, "training.relative_floor": 0.5})
    loss = loss_of(recipe)(FORECAST[..., None], TRUTH)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_relative_error_of_zeros_is_over_the_floor():
    zeros = torch.zeros(3)
    assert relative_error(zeros + 0.2, zeros, 1e-4).item() == pytest.approx(2000)


def test_the_pinball_loss_by_hand():
    # Of the truth 1: the quantile 0.1 at 0 is 1 too low and costs 0.1, 0.5 at 3 costs 0.5 * 2, 0.9
    # at 2 is 1 too high and costs 0.1.
    y = torch.tensor([0.0, 3.0, 2.0]).expand(4, 1, 1, 3)
    loss = Pinball((0.1, 0.5, 0.9))(y, torch.ones(4, 1, 1))
    assert loss.item() == pytest.approx((0.1 + 1.0 + 0.1) / 3, rel=1e-6)


def test_a_recipe_with_quantiles_takes_their_loss():
    recipe = runs.small(**{"network.quantiles": [0.25, 0.5]})
    y, truth = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[2.0]]])
    assert loss_of(recipe)(y, truth).item() == pytest.approx(0.25 / 2)


def test_the_pinball_loss_is_least_at_the_quantile():
    """Of the truth 0.005, 0.015, ..., 0.995 the constant of least loss is the quantile."""
    truth = (torch.arange(100, dtype=torch.float64) / 100 + 0.005).view(100, 1, 1)
    for q in (0.1, 0.7):
        # Halfway between two truths, all values up to the next one are as good.
        losses = [Pinball((q,))(p.expand(100, 1, 1, 1), truth).item() for p in truth[:, 0, 0]]
        assert truth[losses.index(min(losses))].item() == pytest.approx(q, abs=0.0051)
