"""An RNN whose first weights are a bank of filters: leaky integrators and damped rotations.

It remembers a series at many time scales and in step with its seasons, from the first epoch on,
because its nonlinearity hardly shows: tanh of small values, or ReLU of values that stay above 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from fastlstm.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlstm.train.cells import RNN

# Time constants are spread by up to this factor, exp(0.3), either way, so that no two seeds agree.
_SPREAD = 0.3
# Where the states of a ReLU layer rest, in input scales. A unit's response to noise of deviation 1
# has that scale, and changes from step to step are small beside the series: below 0, where ReLU
# cuts, it comes but for jumps. Twice as much costs half a digit of float32.
_HEADROOM = 4.0


def resonate(layer: RNN, periods: Sequence[float], memory: float, scale: float) -> None:
    """Give an RNN layer the weights of such a bank, drawn from torch's own generator.

    A third of the units, all where there are no `periods`, are leaky integrators, whose time
    constants run evenly on a logarithmic scale from 1 to `memory` steps. The others are pairs that
    turn once in a period and fade within up to `memory` steps. Inputs come in with weights of
    +-`scale`, times what keeps each unit's response to noise alike. The states of tanh rest at 0;
    those of ReLU rest above it, which takes biases and h0. Small states of tanh suit our own
    streams, whose tanh is exact to the last places; a runtime whose tanh is only exact to 3e-7, as
    ONNX Runtime's is, then loses digits that a head with great weights brings to light, and ReLU
    keeps them. Raises ModelError where the layer has fewer than 1 + 3 units a period, or no bias.
    """
    units = layer.hidden_size
    least = 1 + 3 * len(periods)
    if units < least or not layer.bias:
        raise ModelError(
            f"RNN.resonant: expected biases and at least {least} units for {len(periods)} periods, "
            f"found {'' if layer.bias else 'no '}biases and {units} units"
        )
    pairs = (units - max(1, units // 3)) // 2 if periods else 0
    alone = units - 2 * pairs
    weight = torch.zeros(units, units)
    for k, constant in enumerate(_time_constants(alone, memory)):
        weight[k, k] = math.exp(-1 / float(constant))
    rounds = -(-pairs // len(periods)) if pairs else 0
    fading = _time_constants(rounds, memory).flip(0)
    for j in range(pairs):
        turn, keep = (
            2 * math.pi / periods[j % len(periods)],
            math.exp(-1 / fading[j // len(periods)]),
        )
        a = alone + 2 * j
        weight[a, a] = weight[a + 1, a + 1] = keep * math.cos(turn)
        weight[a + 1, a], weight[a, a + 1] = keep * math.sin(turn), -keep * math.sin(turn)
    gain = (1 - weight.square().sum(1).clamp(max=0.9999)).sqrt()
    signs = torch.randn(units, layer.input_size).sign()
    with torch.no_grad():
        weights = {"weight_hh_l0": weight, "weight_ih_l0": scale * gain[:, None] * signs}
        if layer.nonlinearity == "relu":
            rest = torch.full((units,), _HEADROOM * scale)
            weights |= {"bias_ih_l0": rest - weight @ rest, "h0": rest}
            layer.learn_initial_state()
        for name, parameter in layer.named_parameters():
            parameter.copy_(weights.get(name, torch.zeros(1)))


def _time_constants(count: int, longest: float) -> torch.Tensor:
    """From 1 to `longest` steps, evenly on a logarithmic scale but for a random spread."""
    even = torch.logspace(0, math.log10(longest), count)
    spread = torch.exp((torch.rand(count) * 2 - 1) * _SPREAD)
    return (even * spread).clamp(0.7, longest)
