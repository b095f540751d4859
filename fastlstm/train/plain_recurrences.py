"""The recurrences that torch lacks as plain loops over time, which a trace compiles.

Training runs the same equations in recurrences.py; the tests hold the two against each other.
"""

from __future__ import annotations

import torch
from torch import Tensor


# A trace would write the loop out for the length of its example; compiled, it takes any.
@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def lstm_loop(
    z_x: Tensor, h: Tensor, c: Tensor, w_hh: Tensor, w_hr: Tensor | None, peephole: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Over z_x (batch, time, 4H), what the inputs give to the gates: y, the last h and c."""
    outputs: list[Tensor] = []
    for z in z_x.unbind(1):
        i, f, g, o = (z + torch.matmul(h, w_hh.t())).chunk(4, 1)
        if peephole is not None:
            p_i, p_f, p_o = peephole.chunk(3)
            c = torch.sigmoid(f + p_f * c) * c + torch.sigmoid(i + p_i * c) * torch.tanh(g)
            o = o + p_o * c
        else:
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        if w_hr is not None:
            h = torch.matmul(h, w_hr.t())
        outputs.append(h)
    return torch.stack(outputs, 1), h, c


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def gru_loop(z_x: Tensor, h: Tensor, w_hh: Tensor) -> tuple[Tensor, Tensor]:
    """Over z_x (batch, time, 3H), what the inputs give to the gates: y and the last h."""
    hidden = h.size(1)
    w_rz, w_n = w_hh[: 2 * hidden], w_hh[2 * hidden :]
    outputs: list[Tensor] = []
    for z in z_x.unbind(1):
        r, s = torch.sigmoid(z[:, : 2 * hidden] + torch.matmul(h, w_rz.t())).chunk(2, 1)
        n = torch.tanh(z[:, 2 * hidden :] + torch.matmul(r * h, w_n.t()))
        h = (1 - s) * n + s * h
        outputs.append(h)
    return torch.stack(outputs, 1), h
