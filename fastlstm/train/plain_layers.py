"""The layers of the twin that have no gates: Dense, Affine, norms, differences and residuals.

All take (batch, time, size), or (values, size) packed as torch packs sequences of several lengths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fastlstm import model as hub
from fastlstm.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Dense(nn.Linear):
    """The twin of fastlstm.model.Dense: nn.Linear and an activation after it."""

    def __init__(
        self, input_size: int, output_size: int, activation: str = "linear", bias: bool = True
    ) -> None:
        """Random weights as nn.Linear draws them."""
        super().__init__(input_size, output_size, bias)
        if activation not in hub.ACTIVATIONS:
            raise ModelError(
                f"Dense.activation: expected one of {', '.join(hub.ACTIVATIONS)}, "
                f"found {activation!r}"
            )
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        """(..., input_size) -> (..., output_size)."""
        z = super().forward(input)
        if self.activation == "linear":
            return z
        if self.activation == "softmax":
            return torch.softmax(z, -1)
        activate: Callable[[Tensor], Tensor] = getattr(torch, self.activation)
        return activate(z)


class Affine(nn.Module):
    """The twin of fastlstm.model.Affine. Its arrays are buffers: measured, not trained."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Any, shift: Any) -> None:
        """Both arrays: (size,)."""
        super().__init__()
        self.register_buffer("scale", torch.tensor(np.asarray(scale), dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(np.asarray(shift), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)."""
        return x * self.scale + self.shift


class LayerNorm(nn.LayerNorm):
    """The twin of fastlstm.model.LayerNorm: nn.LayerNorm over the values of one step."""

    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True) -> None:
        """Weights of 1, a bias of 0."""
        super().__init__(size, eps=float(eps), bias=bias)


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d over all steps of all sequences; in a Model it is the Affine it folds into."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., size) -> (..., size)."""
        return super().forward(input.reshape(-1, self.num_features)).reshape(input.shape)

    def folded(self) -> hub.Affine:
        """What it computes in eval mode, worked out in float64 and rounded once."""
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, variance, weight, bias = (
            tensor.detach().cpu().double().numpy()
            for tensor in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        scale = weight / np.sqrt(variance + self.eps)
        shift = bias - mean * scale
        return hub.Affine(scale.astype(np.float32), shift.astype(np.float32))


class Difference(nn.Module):
    """The twin of fastlstm.model.Difference; its state is the last input."""

    def __init__(self, size: int) -> None:
        """Begins at zeros, unless learn_initial_state makes that beginning a parameter."""
        super().__init__()
        self.size = size
        self.x0: nn.Parameter | None
        self.register_parameter("x0", None)

    def learn_initial_state(self) -> None:
        """Make what stands before the first step a parameter: x0, zeros to begin with."""
        self.x0 = nn.Parameter(torch.zeros(self.size))

    def initial(self, rows: int, like: Tensor) -> Tensor:
        """What stands before the first step of so many sequences: (rows, size)."""
        x0 = like.new_zeros(()) if self.x0 is None else self.x0
        return x0.expand(rows, self.size)

    def forward(self, x: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Over x (batch, time, size), after `last` (batch, size): differences, and the new last."""
        # The state goes in front, so that a run of no steps hands it on, and is never a view of x,
        # which may be a buffer that the caller fills anew.
        after = torch.cat([last.unsqueeze(1), x], 1)
        return x - after[:, :-1], after[:, -1]

    def packed(self, x: Tensor, last: Tensor, sizes: Tensor) -> Tensor:
        """The same for sequences packed into x (values, size): `sizes` run at each step."""
        # A value's predecessor lies as far before it as there were sequences one step earlier.
        first = int(sizes[0])
        back = torch.repeat_interleave(sizes[:-1], sizes[1:]).to(x.device)
        before = torch.arange(first, len(x), device=x.device) - back
        return x - torch.cat([last[:first], x[before]])


class Residual(nn.Module):
    """The twin of fastlstm.model.Residual; the Network hands it what went into the inner chain."""

    def __init__(self, back: int, columns: Sequence[int]) -> None:
        """As fastlstm.model.Residual, whose checks it leaves to that."""
        super().__init__()
        self.back, self.columns = back, [int(k) for k in columns]
        # The plain skip connection and the one value for all outputs need no gathering.
        first = self.columns[0]
        self.columns_are_range = self.columns == list(range(first, first + len(self.columns)))
        self.columns_are_one = len(set(self.columns)) == 1

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """X plus the columns of source, both (..., size)."""
        first = self.columns[0]
        if self.columns_are_one:
            return x + source[..., first : first + 1]
        if self.columns_are_range:
            return x + source[..., first : first + len(self.columns)]
        return x + source[..., self.columns]
