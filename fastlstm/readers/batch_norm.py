"""A BatchNorm in eval mode as one scale and one shift, as every format has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fastlstm.model import Array


def folded(
    weight: Array | None, bias: Array | None, mean: Array, variance: Array, eps: float
) -> tuple[Array, Array]:
    """Scale and shift of a BatchNorm in eval mode, worked out in float64, rounded once."""
    scale = 1 / np.sqrt(variance.astype(np.float64) + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return scale.astype(np.float32), shift.astype(np.float32)
