"""The last Dense layer by ridge regression on what the layers before it put out, in closed form.

With recurrent layers that keep their first weights this is an echo state network (H. Jaeger, GMD
report 148, 2001): no gradient is taken, and each epoch tries one penalty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastlstm.errors import RecipeError
from fastlstm.train.plain_layers import Dense, Residual

if TYPE_CHECKING:
    from fastlstm.train.network import Network


class LeastSquares:
    """Sums over all that a network sees, and the weights that they ask for."""

    def __init__(self, network: Network) -> None:
        """Raises RecipeError where the network does not end in a linear Dense layer.

        After it there may be residual connections, which add what hangs on no weight of it.
        """
        places = [k for k, layer in enumerate(network.layers) if isinstance(layer, Dense)]
        after = list(network.layers)[places[-1] + 1 :] if places else []
        if not places or not all(isinstance(layer, Residual) for layer in after):
            raise RecipeError(
                "optimiser.name: least_squares fits a Dense layer at the end of the network, or "
                "with nothing but the end of a Residual after it: end with a Dense layer"
            )
        head = network.layers[places[-1]]
        assert isinstance(head, Dense)
        if head.activation != "linear" or head.bias is None:
            raise RecipeError(
                "optimiser.name: least_squares fits a linear layer with a bias, found the "
                f"activation {head.activation} and {'a' if head.bias is not None else 'no'} bias "
                "in the last Dense: leave both out of the recipe"
            )
        self.head = head
        self._seen: tuple[Tensor, Tensor] | None = None
        head.register_forward_hook(self._look)
        self.begin()

    def _look(self, module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen = inputs[0].detach(), output.detach()

    def begin(self) -> None:
        """Forget all sums."""
        size = self.head.in_features + 1
        self.left = torch.zeros(size, size, dtype=torch.float64)
        self.right = torch.zeros(size, self.head.out_features, dtype=torch.float64)
        self.squares, self.count = 0.0, 0

    def add(self, y: Tensor, truth: Tensor) -> None:
        """Take in what was just computed: y and the truth, (windows, scored steps, outputs)."""
        assert self._seen is not None
        features, output = (v[:, -y.size(1) :].flatten(0, 1).double().cpu() for v in self._seen)
        # What is left for the Dense layer, once the residual connections have added their part.
        wanted = truth.flatten(0, 1).double().cpu() - (y.flatten(0, 1).double().cpu() - output)
        x = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], 1)
        self.left += x.T @ x
        self.right += x.T @ wanted
        self.squares += float(wanted.square().sum())
        self.count += wanted.numel()

    def solve(self, penalty: float) -> float:
        """Set the layer's weights and return the mean squared error that they leave.

        `penalty` counts in mean squares of the layer's inputs; the bias is not penalised.
        """
        inputs = self.head.in_features
        ridge = self.left.diagonal()[:inputs].mean() * penalty
        left = self.left.clone()
        left.diagonal()[:inputs] += ridge
        solution = torch.linalg.solve(left, self.right)
        with torch.no_grad():
            self.head.weight.copy_(solution[:inputs].T)
            self.head.bias.copy_(solution[inputs])
        explained = 2 * (solution * self.right).sum() - (solution * (self.left @ solution)).sum()
        return (self.squares - float(explained)) / self.count
