"""What training makes small: losses of forecasts (..., ahead, targets, quantiles) against truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fastlstm.train.recipe_tables import Recipe

# From forecasts (..., ahead, targets, quantiles) and the truth (..., ahead, targets) to one number.
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def loss_of(recipe: Recipe) -> Loss:
    """The mean loss that a recipe asks for."""
    training, quantiles = recipe.training, recipe.network.quantiles
    if quantiles:
        return Pinball(quantiles)
    if training.loss == "relative":
        floor = training.relative_floor
        return lambda y, truth: relative_error(y[..., 0], truth, floor)
    plain = _PLAIN[training.loss]
    return lambda y, truth: plain(y[..., 0], truth)


def relative_error(y: Tensor, truth: Tensor, floor: float) -> Tensor:
    """Mean of |y - truth| / (|truth| + floor)."""
    return ((y - truth).abs() / (truth.abs() + floor)).mean()


class Pinball:
    """The mean quantile loss: max(q * e, (q - 1) * e) with e = truth - forecast.

    Its least value is reached by the true quantiles (Koenker and Bassett 1978).
    """

    def __init__(self, quantiles: tuple[float, ...]) -> None:
        self.quantiles = torch.tensor(quantiles)

    def __call__(self, y: Tensor, truth: Tensor) -> Tensor:
        q = self.quantiles.to(y)
        error = truth.unsqueeze(-1) - y
        return torch.maximum(q * error, (q - 1) * error).mean()


_PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": nn.functional.mse_loss,
    "mae": nn.functional.l1_loss,
    "huber": nn.functional.huber_loss,
}
