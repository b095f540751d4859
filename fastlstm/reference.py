"""The oracle: every layer as its equations, in plain NumPy float64, with no cleverness.

It must never import the kernels, nor they it: two independent writings of the same equations.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.model import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Bidirectional,
    Dense,
    Difference,
    LayerNorm,
    Model,
    Residual,
)

Floats: TypeAlias = NDArray[np.floating[Any]]
State: TypeAlias = tuple[Floats, ...]
OneWay: TypeAlias = LSTM | GRU | RNN | Dense | Affine | LayerNorm | Difference


class Result(NamedTuple):
    """Outputs (time, output_size), and the state after the last step in Model.states' order."""

    output: Floats
    state: State


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), written so that no x overflows."""
    y: Floats = 0.5 * (np.tanh(0.5 * x) + 1)
    return y


def softmax(x: Floats) -> Floats:
    """exp(x) over its sum; shifted by the greatest x, which leaves the ratio as it is."""
    e = np.exp(x - x.max())
    y: Floats = e / e.sum()
    return y


def lstm_step(
    x: Floats,
    h: Floats,
    c: Floats,
    w_ih: Floats,
    w_hh: Floats,
    b_ih: Floats,
    b_hh: Floats,
    peephole: Floats,
    w_hr: Floats | None = None,
) -> tuple[Floats, Floats]:
    """One LSTM step: x (I,), h (P,) and c (H,) -> the new h and c. P is H without a projection.

    Equations of `torch.nn.LSTM`, with the peepholes of ONNX's: (3H,) in the order i f o.
    """
    i, f, g, o = np.split(w_ih @ x + b_ih + w_hh @ h + b_hh, 4)
    p_i, p_f, p_o = np.split(peephole, 3)
    c_new = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
    h = sigmoid(o + p_o * c_new) * np.tanh(c_new)
    return h if w_hr is None else w_hr @ h, c_new


def gru_step(
    x: Floats,
    h: Floats,
    w_ih: Floats,
    w_hh: Floats,
    b_ih: Floats,
    b_hh: Floats,
    *,
    reset: str,
) -> Floats:
    """One GRU step: x (I,), h (H,) -> the new h. Equations of `torch.nn.GRU` for reset "after"."""
    r_x, z_x, n_x = np.split(w_ih @ x + b_ih, 3)
    r_h, z_h, n_h = np.split(w_hh @ h + b_hh, 3)
    r = sigmoid(r_x + r_h)
    z = sigmoid(z_x + z_h)
    if reset == "before":
        w_hn, b_hn = np.split(w_hh, 3)[2], np.split(b_hh, 3)[2]
        n = np.tanh(n_x + w_hn @ (r * h) + b_hn)
    else:
        n = np.tanh(n_x + r * n_h)
    return (1 - z) * n + z * h


def rnn_step(
    x: Floats,
    h: Floats,
    w_ih: Floats,
    w_hh: Floats,
    b_ih: Floats,
    b_hh: Floats,
    *,
    nonlinearity: str,
) -> Floats:
    """One Elman step: x (I,), h (H,) -> the new h. Equations of `torch.nn.RNN`."""
    z = w_ih @ x + b_ih + w_hh @ h + b_hh
    return np.tanh(z) if nonlinearity == "tanh" else np.maximum(z, 0)


def dense_step(x: Floats, weight: Floats, bias: Floats, *, activation: str) -> Floats:
    """activation(weight @ x + bias): x (I,) -> (O,)."""
    z = weight @ x + bias
    if activation == "relu":
        return np.maximum(z, 0)
    if activation == "tanh":
        return np.tanh(z)
    if activation == "sigmoid":
        return sigmoid(z)
    if activation == "softmax":
        return softmax(z)
    return z


def affine_step(x: Floats, scale: Floats, shift: Floats) -> Floats:
    """Scale * x + shift, element by element."""
    return scale * x + shift


def layer_norm_step(x: Floats, weight: Floats, bias: Floats, *, eps: float) -> Floats:
    """(x - mean) / sqrt(variance + eps) * weight + bias. Equations of `torch.nn.LayerNorm`."""
    centred = x - x.mean()
    y: Floats = centred / np.sqrt((centred**2).mean() + x.dtype.type(eps)) * weight + bias
    return y


def difference_step(x: Floats, last: Floats) -> Floats:
    """What changed since the last step's x."""
    return x - last


def residual_step(x: Floats, source: Floats, columns: tuple[int, ...]) -> Floats:
    """X plus the columns of what went into the inner chain."""
    return x + source[list(columns)]


class _Lifted:
    """A layer with its arrays lifted to the working precision, absent biases as zeros."""

    def __init__(self, layer: OneWay, dtype: type) -> None:
        self.layer = layer
        self.arrays: list[Floats] = [a.astype(dtype) for a in _ordered(layer)]

    def step(self, x: Floats, state: State) -> tuple[Floats, State]:
        match self.layer:
            case LSTM():
                h, c = lstm_step(x, *state, *self.arrays)
                return h, (h, c)
            case GRU(reset=reset):
                h = gru_step(x, *state, *self.arrays, reset=reset)
                return h, (h,)
            case RNN(nonlinearity=nonlinearity):
                h = rnn_step(x, *state, *self.arrays, nonlinearity=nonlinearity)
                return h, (h,)
            case Dense(activation=activation):
                return dense_step(x, *self.arrays, activation=activation), ()
            case Affine():
                return affine_step(x, *self.arrays), ()
            case LayerNorm(eps=eps):
                return layer_norm_step(x, *self.arrays, eps=eps), ()
            case Difference():
                return difference_step(x, *state), (x,)


def _ordered(layer: OneWay) -> list[Floats]:
    """The layer's arrays in the order of its step function's arguments."""
    match layer:
        case LSTM() | GRU() | RNN():
            zeros = np.zeros(layer.weight_ih_l0.shape[0], np.float32)
            b_ih = zeros if layer.bias_ih_l0 is None else layer.bias_ih_l0
            b_hh = zeros if layer.bias_hh_l0 is None else layer.bias_hh_l0
            arrays: list[Floats] = [layer.weight_ih_l0, layer.weight_hh_l0, b_ih, b_hh]
            if isinstance(layer, LSTM):
                no_peephole = np.zeros(3 * layer.hidden_size, np.float32)
                arrays.append(no_peephole if layer.peephole_l0 is None else layer.peephole_l0)
                if layer.weight_hr_l0 is not None:
                    arrays.append(layer.weight_hr_l0)
            return arrays
        case Dense():
            zeros = np.zeros(layer.output_size, np.float32)
            return [layer.weight, zeros if layer.bias is None else layer.bias]
        case Affine():
            return [layer.scale, layer.shift]
        case LayerNorm():
            zeros = np.zeros(layer.output_size, np.float32)
            return [layer.weight, zeros if layer.bias is None else layer.bias]
        case Difference():
            return []


def _run_layer(layer: OneWay | Bidirectional, x: Floats, dtype: type) -> Result:
    """One layer over a whole sequence: x (time, I) -> (time, O), and its state at the end."""
    if isinstance(layer, Bidirectional):
        forward = _run_layer(layer.forward, x, dtype)
        backward = _run_layer(layer.backward, x[::-1], dtype)
        y = np.concatenate([forward.output, backward.output[::-1]], axis=1)
        # The backward half ends at the first sample, so that is where its state is from.
        return Result(y, forward.state + backward.state)
    lifted = _Lifted(layer, dtype)
    state: State = tuple(s.initial.astype(dtype) for s in layer.states)
    output: Floats = np.empty((len(x), layer.output_size), dtype)
    for t, value in enumerate(x):
        output[t], state = lifted.step(value, state)
    return Result(output, state)


def run(model: Model, x: Any, dtype: type = np.float64) -> Floats:
    """Outputs of `model` over x, from its initial state: (time, input_size) -> (time, output_size).

    `dtype` float64 is the truth; float32 is the yardstick that says how far plain single precision
    strays from it (see verify.py).
    """
    return run_with_state(model, x, dtype).output


def run_with_state(model: Model, x: Any, dtype: type = np.float64) -> Result:
    """As `run`, and the state after the last step."""
    x = np.asarray(x, dtype)
    if x.ndim != 2 or x.shape[1] != model.input_size:
        raise ValueError(
            f"reference.run: expected x of shape (time, {model.input_size}), found {x.shape}"
        )
    state: State = ()
    inputs: list[Floats] = []  # of each layer, for the residual connections
    # Layer by layer: a bidirectional one needs all that the layer before it puts out.
    for k, layer in enumerate(model.layers):
        inputs.append(x)
        if isinstance(layer, Residual):
            rows = zip(x, inputs[k - layer.back], strict=True)
            y = [residual_step(row, source, layer.columns) for row, source in rows]
            x = np.array(y, dtype).reshape(len(x), layer.output_size)
            continue
        x, end = _run_layer(layer, x, dtype)
        state += end
    return Result(x, state)


def check_input(model: Model, steps: int, seed: int = 0) -> NDArray[np.float32]:
    """A random series that such a model would really see: (steps, input_size) float32.

    Normal with deviation 1 where the network begins; where the first layer is an Affine that
    standardises, the values are taken back through it, so that the gates are not all saturated.
    """
    z = np.random.default_rng(seed).standard_normal((steps, model.input_size))
    first = model.layers[0]
    if isinstance(first, Affine):
        scale = np.where(first.scale == 0, 1, first.scale).astype(np.float64)
        z = (z - first.shift) / scale
    return z.astype(np.float32)
