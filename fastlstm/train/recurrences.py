"""The recurrences that torch lacks: peepholes, wide projections and the reset before the product.

Forward and backward are written by hand over whole sequences: one product for all steps' inputs and
one for each weight's gradient, and per step only what depends on the step before or after it. All
take packed sequences; of one length, these are (time, batch) laid out flat. The same equations as
plain loops, which a trace needs, are in plain_recurrences.py.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Gradients: TypeAlias = "tuple[Tensor | None, ...]"

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def _in_its_own_precision(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Where autocast is on as the loss is taken back, torch would cast the products in here."""

    @wraps(backward)
    def run(ctx: Any, *gradients: Tensor) -> Gradients:
        with torch.autocast(gradients[0].device.type, enabled=False):
            return backward(ctx, *gradients)

    return run


class LSTMLoop(torch.autograd.Function):
    """An LSTM over packed sequences, with peepholes, a projection, both or neither.

    apply(x, h, c, w_ih, bias, w_hh, w_hr, peephole, sizes) -> y, h, c: x (values, I), h (batch, P),
    c (batch, H); bias, w_hr and peephole may be None; sizes says how many sequences run at each
    step. The state comes back as it is after each sequence's own last step. Differentiable once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        w_ih: Tensor,
        bias: Tensor | None,
        w_hh: Tensor,
        w_hr: Tensor | None,
        peephole: Tensor | None,
        sizes: Sequence[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden, h_0, c_0 = c.size(1), h, c
        gates = torch.nn.functional.linear(x, w_ih, bias)
        blocks = gates.view(len(x), 4, hidden)
        cells = x.new_empty(len(x), hidden)
        tanh_c, m = torch.empty_like(cells), torch.empty_like(cells)  # m: what is projected
        y = m if w_hr is None else x.new_empty(len(x), h.size(1))
        w = w_hh.t()
        p_if = p_o = None
        if peephole is not None:
            p_if, p_o = peephole[: 2 * hidden].view(2, hidden), peephole[2 * hidden :]
        each = (gates, blocks[:, :2], *blocks.unbind(1), cells, tanh_c, m, y)
        for n, *parts in zip(sizes, *(part.split_with_sizes(sizes) for part in each), strict=True):
            z, i_f, i, f, g, o, c_t, tanh_t, m_t, y_t = parts
            if n < len(h):
                h, c = h[:n], c[:n]
            z.addmm_(h, w)
            if p_if is not None:
                i_f.addcmul_(c.unsqueeze(1), p_if)
            i_f.sigmoid_()
            g.tanh_()
            torch.mul(f, c, out=c_t).addcmul_(i, g)
            if p_o is not None:
                o.addcmul_(c_t, p_o)
            o.sigmoid_()
            torch.tanh(c_t, out=tanh_t)
            torch.mul(o, tanh_t, out=m_t)
            if w_hr is not None:
                torch.mm(m_t, w_hr.t(), out=y_t)
            h, c = y_t, c_t
        ctx.sizes = sizes
        ctx.save_for_backward(
            x, h_0, c_0, w_ih, bias, w_hh, w_hr, peephole, gates, cells, tanh_c, m, y
        )
        return y, _last(h_0, y, sizes), _last(c_0, cells, sizes)

    @staticmethod
    @once_differentiable
    @_in_its_own_precision
    def backward(ctx: Any, d_y: Tensor, d_h: Tensor, d_c: Tensor) -> Gradients:  # type: ignore[override]
        x, h_0, c_0, w_ih, bias, w_hh, w_hr, peephole, gates, cells, tanh_c, m, y = (
            ctx.saved_tensors
        )
        sizes, hidden, batch = ctx.sizes, c_0.size(1), len(c_0)
        i, f, g, o = gates.chunk(4, 1)
        before = _shifted(c_0, cells, sizes)
        # For all steps at once: how the gates before their activations follow the new cell state
        # (i f g) and m (o), how it follows m, and the old cell state the new one.
        d_z = torch.empty_like(gates)
        d_i, d_f, d_g, d_o = d_z.chunk(4, 1)
        _sigmoid_backward(g, i, grad_input=d_i)
        _sigmoid_backward(before, f, grad_input=d_f)
        _tanh_backward(i, g, grad_input=d_g)
        _sigmoid_backward(tanh_c, o, grad_input=d_o)
        by_m = torch.empty_like(cells)
        _tanh_backward(o, tanh_c, grad_input=by_m)
        by_new = f
        if peephole is not None:
            p_i, p_f, p_o = peephole.chunk(3)
            by_m.addcmul_(d_o, p_o)
            by_new = torch.addcmul(f, d_i, p_i).addcmul_(d_f, p_f)
        d_all, d_c = _with_last(h_0, d_y, d_h, sizes), d_c.clone()
        d_ifg = d_z.view(len(x), 4, hidden)[:, :3]
        steps = [
            d_all.split_with_sizes([batch, *sizes])[:-1],
            *(
                part.split_with_sizes(sizes)
                for part in (d_all[batch:], d_z, d_ifg, d_o, by_m, by_new)
            ),
        ]
        for n, *parts in reversed([*zip(sizes, *steps, strict=True)]):
            d_last, d_now, z, ifg, o_t, by_m_t, by_new_t = parts
            d_m = d_now if w_hr is None else torch.mm(d_now, w_hr)
            d_cn = d_c[:n].addcmul_(d_m, by_m_t)
            o_t.mul_(d_m)
            ifg.mul_(d_cn.unsqueeze(1))
            d_cn.mul_(by_new_t)
            d_last[:n].addmm_(z, w_hh)
        d_hr = d_peephole = None
        if w_hr is not None:
            d_hr = d_all[batch:].t() @ m
        if peephole is not None:
            d_peephole = torch.cat(
                [(d_i * before).sum(0), (d_f * before).sum(0), (d_o * cells).sum(0)]
            )
        h_before = _shifted(h_0, y, sizes)
        d_hh, d_ih, d_bias = _weights(d_z, h_before, x, bias)
        d_x = d_z @ w_ih if ctx.needs_input_grad[0] else None
        return d_x, d_all[:batch], d_c, d_ih, d_bias, d_hh, d_hr, d_peephole, None


class GRULoop(torch.autograd.Function):
    """A GRU whose reset gate acts before the product, over packed sequences.

    apply(x, h, w_ih, bias, w_hh, sizes) -> y, h, as LSTMLoop. Differentiable once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        w_ih: Tensor,
        bias: Tensor | None,
        w_hh: Tensor,
        sizes: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        hidden, h_0 = h.size(1), h
        gates = torch.nn.functional.linear(x, w_ih, bias)
        r_s, n_all = gates[:, : 2 * hidden], gates[:, 2 * hidden :]
        reset = x.new_empty(len(x), hidden)  # what W_n is multiplied by
        y = torch.empty_like(reset)
        w_rs, w_n = w_hh[: 2 * hidden].t(), w_hh[2 * hidden :].t()
        each = (r_s, *r_s.chunk(2, 1), n_all, reset, y)
        for count, *parts in zip(
            sizes, *(part.split_with_sizes(sizes) for part in each), strict=True
        ):
            z, r, s, n, reset_t, y_t = parts
            if count < len(h):
                h = h[:count]
            z.addmm_(h, w_rs).sigmoid_()
            torch.mul(r, h, out=reset_t)
            n.addmm_(reset_t, w_n).tanh_()
            h = torch.lerp(n, h, s, out=y_t)
        ctx.sizes = sizes
        ctx.save_for_backward(x, h_0, w_ih, bias, w_hh, gates, reset, y)
        return y, _last(h_0, y, sizes)

    @staticmethod
    @once_differentiable
    @_in_its_own_precision
    def backward(ctx: Any, d_y: Tensor, d_h: Tensor) -> Gradients:  # type: ignore[override]
        x, h_0, w_ih, bias, w_hh, gates, reset, y = ctx.saved_tensors
        sizes, hidden, batch = ctx.sizes, h_0.size(1), len(h_0)
        w_rs, w_n = w_hh[: 2 * hidden], w_hh[2 * hidden :]
        r, s, n = gates.chunk(3, 1)
        before = _shifted(h_0, y, sizes)
        # For all steps at once: how s and n before their activations follow the new h, and r what
        # W_n is multiplied by.
        d_z = torch.empty_like(gates)
        d_r, d_s, d_n = d_z.chunk(3, 1)
        _sigmoid_backward(before, r, grad_input=d_r)
        _sigmoid_backward(before - n, s, grad_input=d_s)
        _tanh_backward(1 - s, n, grad_input=d_n)
        d_all, d_rs = _with_last(h_0, d_y, d_h, sizes), d_z[:, : 2 * hidden]
        steps = [
            d_all.split_with_sizes([batch, *sizes])[:-1],
            *(part.split_with_sizes(sizes) for part in (d_all[batch:], d_rs, d_r, d_s, d_n, r, s)),
        ]
        for count, *parts in reversed([*zip(sizes, *steps, strict=True)]):
            d_last, d_now, rs_t, dr_t, ds_t, dn_t, r_t, s_t = parts
            d_reset = torch.mm(dn_t.mul_(d_now), w_n)
            ds_t.mul_(d_now)
            dr_t.mul_(d_reset)
            d_last[:count].addmm_(rs_t, w_rs).addcmul_(d_now, s_t).addcmul_(d_reset, r_t)
        d_hrs, d_irs, d_brs = _weights(d_rs, before, x, bias)
        d_hn, d_in, d_bn = _weights(d_n, reset, x, bias)
        d_hh, d_ih = torch.cat([d_hrs, d_hn]), torch.cat([d_irs, d_in])
        d_bias = None if d_brs is None or d_bn is None else torch.cat([d_brs, d_bn])
        d_x = d_z @ w_ih if ctx.needs_input_grad[0] else None
        return d_x, d_all[:batch], d_ih, d_bias, d_hh, None


def _weights(
    d_z: Tensor, h: Tensor, x: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of what h and x are multiplied by, and of the bias, in one product."""
    given = [h, x] if bias is None else [h, x, x.new_ones(len(x), 1)]
    found = d_z.t() @ torch.cat(given, 1)
    parts = found.split_with_sizes([part.size(1) for part in given], 1)
    return parts[0], parts[1], None if bias is None else parts[2][:, 0]


def _shifted(first: Tensor, values: Tensor, sizes: Sequence[int]) -> Tensor:
    """What stood before each step: `first` (batch, size), then packed values without their last."""
    if not sizes:
        return values
    if sizes[0] == sizes[-1]:
        return torch.cat([first, values[: len(values) - sizes[0]]])
    steps = values.split_with_sizes(sizes)[:-1]
    return torch.cat([first, *(v[:n] for v, n in zip(steps, sizes[1:], strict=True))])


def _last(first: Tensor, values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Each sequence's own last row of packed values, in the order of the batch."""
    return values[_last_rows(sizes)].clone() if sizes else first.clone()


def _with_last(first: Tensor, d_y: Tensor, d_last: Tensor, sizes: Sequence[int]) -> Tensor:
    """The gradients of h: zeros for the initial one, then of all outputs, the final ones added."""
    if not sizes:
        return d_last.clone()
    d_all = torch.cat([torch.zeros_like(first), d_y])
    d_all[len(first) :][_last_rows(sizes)] += d_last
    return d_all


def _last_rows(sizes: Sequence[int]) -> slice | list[int]:
    if sizes[0] == sizes[-1]:
        return slice(-sizes[0], None)
    rows, end = [0] * sizes[0], 0
    for n in sizes:
        rows[:n] = range(end, end + n)
        end += n
    return rows
