"""The oracle: every layer as its equations, in plain NumPy float64, with no cleverness.

It must never import the kernels, nor they it: two independent writings of the same equations.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.model import GRU, LSTM, RNN, Affine, Dense, Layer, Model

Floats: TypeAlias = NDArray[np.floating[Any]]
States: TypeAlias = list[tuple[Floats, ...]]


class Result(NamedTuple):
    """Outputs (time, output_size), and the state after the last step in Model.states' order."""

    output: Floats
    state: tuple[Floats, ...]


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
    x: Floats, h: Floats, c: Floats, w_ih: Floats, w_hh: Floats, b_ih: Floats, b_hh: Floats
) -> tuple[Floats, Floats]:
    """One LSTM step: x (I,), h and c (H,) -> the new h and c. Equations of `torch.nn.LSTM`."""
    i, f, g, o = np.split(w_ih @ x + b_ih + w_hh @ h + b_hh, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, c


def gru_step(
    x: Floats, h: Floats, w_ih: Floats, w_hh: Floats, b_ih: Floats, b_hh: Floats
) -> Floats:
    """One GRU step: x (I,), h (H,) -> the new h. Equations of `torch.nn.GRU`."""
    r_x, z_x, n_x = np.split(w_ih @ x + b_ih, 3)
    r_h, z_h, n_h = np.split(w_hh @ h + b_hh, 3)
    r = sigmoid(r_x + r_h)
    z = sigmoid(z_x + z_h)
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


class _Lifted:
    """A layer with its arrays lifted to the working precision, absent biases as zeros."""

    def __init__(self, layer: Layer, dtype: type) -> None:
        self.layer = layer
        self.arrays: list[Floats] = [a.astype(dtype) for a in _ordered(layer)]

    def step(self, x: Floats, state: tuple[Floats, ...]) -> tuple[Floats, tuple[Floats, ...]]:
        match self.layer:
            case LSTM():
                h, c = lstm_step(x, *state, *self.arrays)
                return h, (h, c)
            case GRU():
                h = gru_step(x, *state, *self.arrays)
                return h, (h,)
            case RNN(nonlinearity=nonlinearity):
                h = rnn_step(x, *state, *self.arrays, nonlinearity=nonlinearity)
                return h, (h,)
            case Dense(activation=activation):
                return dense_step(x, *self.arrays, activation=activation), ()
            case Affine():
                return affine_step(x, *self.arrays), ()


def _ordered(layer: Layer) -> list[Floats]:
    """The layer's arrays in the order of its step function's arguments."""
    match layer:
        case LSTM() | GRU() | RNN():
            zeros = np.zeros(layer.weight_ih_l0.shape[0], np.float32)
            b_ih = zeros if layer.bias_ih_l0 is None else layer.bias_ih_l0
            b_hh = zeros if layer.bias_hh_l0 is None else layer.bias_hh_l0
            return [layer.weight_ih_l0, layer.weight_hh_l0, b_ih, b_hh]
        case Dense():
            zeros = np.zeros(layer.output_size, np.float32)
            return [layer.weight, zeros if layer.bias is None else layer.bias]
        case Affine():
            return [layer.scale, layer.shift]


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
    layers = [_Lifted(layer, dtype) for layer in model.layers]
    state: States = [
        tuple(s.initial.astype(dtype) for s in model.states if s.layer == k)
        for k in range(len(layers))
    ]
    y: Floats = np.empty((len(x), model.output_size), dtype)
    for t, value in enumerate(x):
        for k, layer in enumerate(layers):
            value, state[k] = layer.step(value, state[k])
        y[t] = value
    return Result(y, tuple(vector for vectors in state for vector in vectors))


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
