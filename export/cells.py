"""One small model for each thing that a Model can hold, for the matrix of runtimes.

Always the same: sizes off the vectors, and weights drawn as PyTorch draws them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlstm.model import Array, Layer

INPUTS, HIDDEN, PROJECTED, OUTPUTS = 3, 17, 5, 2
ROWS = {"LSTM": 4, "GRU": 3, "RNN": 1}


class _Draw:
    """Layers with weights from one seeded generator."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def uniform(self, *shape: int, limit: float = 1.0) -> Array:
        return self.rng.uniform(-limit, limit, shape).astype(np.float32)

    def recurrent(
        self,
        kind: str,
        inputs: int = INPUTS,
        *,
        bias: bool = True,
        initial: bool = False,
        projection: int = 0,
        peephole: bool = False,
        **options: Any,
    ) -> LSTM | GRU | RNN:
        """A layer of HIDDEN units; `options` are those of its class."""
        rows, limit, width = ROWS[kind] * HIDDEN, HIDDEN**-0.5, projection or HIDDEN
        arrays: dict[str, Any] = {
            "weight_ih_l0": self.uniform(rows, inputs, limit=limit),
            "weight_hh_l0": self.uniform(rows, width, limit=limit),
        }
        if bias:
            arrays["bias_ih_l0"] = self.uniform(rows, limit=limit)
            arrays["bias_hh_l0"] = self.uniform(rows, limit=limit)
        if projection:
            arrays["weight_hr_l0"] = self.uniform(projection, HIDDEN, limit=limit)
        if peephole:
            arrays["peephole_l0"] = self.uniform(3 * HIDDEN)
        if initial:
            arrays["h0"] = self.uniform(width)
            if kind == "LSTM":
                arrays["c0"] = self.uniform(HIDDEN)
        makers: dict[str, Any] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
        layer: LSTM | GRU | RNN = makers[kind](**arrays, **options)
        return layer

    def dense(self, inputs: int, outputs: int = OUTPUTS, activation: str = "linear") -> Dense:
        weight = self.uniform(outputs, inputs, limit=inputs**-0.5)
        return Dense(weight, self.uniform(outputs), activation)

    def topped(self, *layers: Layer) -> Model:
        """A model of these layers with a linear Dense on top."""
        return Model((*layers, self.dense(layers[-1].output_size)))


def one_way(kind: str, layers: int = 1, **options: Any) -> Model:
    """Layers of one kind, with a linear Dense on top."""
    draw = _Draw()
    chain: list[Layer] = []
    for _ in range(layers):
        inputs = chain[-1].output_size if chain else INPUTS
        chain.append(draw.recurrent(kind, inputs, **options))
    return draw.topped(*chain)


def both_ways(kind: str, layers: int = 1, **options: Any) -> Model:
    """Bidirectional layers of one kind, with a linear Dense on top."""
    draw = _Draw()
    chain: list[Layer] = []
    for _ in range(layers):
        inputs = chain[-1].output_size if chain else INPUTS
        forward, backward = (draw.recurrent(kind, inputs, **options) for _ in range(2))
        chain.append(Bidirectional(forward, backward))
    return draw.topped(*chain)


def layer_norm() -> Model:
    """An LSTM whose output is normalised."""
    draw = _Draw()
    norm = LayerNorm(draw.uniform(HIDDEN) + np.float32(1), draw.uniform(HIDDEN))
    return draw.topped(draw.recurrent("LSTM"), norm)


def difference() -> Model:
    """An LSTM that sees what changed, with a learned value before the first step."""
    draw = _Draw()
    return draw.topped(Difference(INPUTS, draw.uniform(INPUTS)), draw.recurrent("LSTM"))


def residual() -> Model:
    """A forecast of what the LSTM adds to two of its inputs, in another order."""
    draw = _Draw()
    model = draw.topped(draw.recurrent("LSTM"))
    return Model((*model.layers, Residual(2, (2, 0))))


def scaled(activation: str) -> Model:
    """An Affine, an LSTM, and a Dense with this activation."""
    draw = _Draw()
    scaling = Affine(draw.uniform(INPUTS, limit=2), draw.uniform(INPUTS))
    return Model((scaling, draw.recurrent("LSTM"), draw.dense(HIDDEN, 4, activation)))


def _one_way(**options: Any) -> Callable[[], Model]:
    return lambda: one_way(**options)


def _both_ways(**options: Any) -> Callable[[], Model]:
    return lambda: both_ways(**options)


def _scaled(activation: str) -> Callable[[], Model]:
    return lambda: scaled(activation)


PLAIN: dict[str, dict[str, Any]] = {
    "LSTM": {"kind": "LSTM"},
    "GRU": {"kind": "GRU"},
    "RNN tanh": {"kind": "RNN"},
    "RNN relu": {"kind": "RNN", "nonlinearity": "relu"},
}
# What a layer may have beside.
BESIDE: dict[str, dict[str, Any]] = {
    "LSTM projection": {"kind": "LSTM", "projection": PROJECTED},
    "LSTM peepholes": {"kind": "LSTM", "peephole": True},
    "LSTM proj. + peep.": {"kind": "LSTM", "projection": PROJECTED, "peephole": True},
    "GRU reset before": {"kind": "GRU", "reset": "before"},
    "LSTM learned start": {"kind": "LSTM", "initial": True},
    "GRU learned start": {"kind": "GRU", "initial": True},
    "RNN learned start": {"kind": "RNN", "initial": True},
}
CELLS: dict[str, Callable[[], Model]] = {
    **{name: _one_way(**options) for name, options in PLAIN.items()},
    **{f"{name} no bias": _one_way(**options, bias=False) for name, options in PLAIN.items()},
    **{
        f"{name} {layers} layers": _one_way(**options, layers=layers)
        for layers in (2, 3)
        for name, options in PLAIN.items()
    },
    **{name: _one_way(**options) for name, options in BESIDE.items()},
    **{f"Bi{name}": _both_ways(**options) for name, options in {**PLAIN, **BESIDE}.items()},
    "BiLSTM 2 layers": _both_ways(kind="LSTM", layers=2),
    "LSTM, LayerNorm": layer_norm,
    "Difference, LSTM": difference,
    "LSTM, Residual": residual,
    **{
        f"Affine, LSTM, {activation}": _scaled(activation)
        for activation in ("relu", "tanh", "sigmoid", "softmax")
    },
}
