"""Every awkward model, weight and stream, made once for all tests; the same in every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    Layer,
    LayerNorm,
    Model,
    Residual,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fastlstm.recurrent_layers import Recurrent

Array = NDArray[np.float32]

# Below, at and above every vector width and group size; 1; primes; sizes of real use.
HIDDEN_SIZES = (1, 3, 8, 16, 17, 33, 64, 130)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def uniform(rng: np.random.Generator, *shape: int, limit: float = 1.0) -> Array:
    """float32 values in [-limit, limit)."""
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def recurrent(
    kind: str,
    inputs: int,
    hidden: int,
    *,
    seed: int = 0,
    bias: bool = True,
    gain: float = 1.0,
    initial: bool = False,
    nonlinearity: str = "tanh",
    projection: int = 0,
    peephole: bool = False,
    reset: str = "after",
) -> Recurrent:
    """A layer with weights as PyTorch draws them, uniform in +-1 / sqrt(hidden).

    `gain` enlarges the input weights and the biases, which saturates the gates; enlarged hidden
    weights would make the network chaotic, and then no two roundings stay together.
    `projection` is the size of an LSTM's output, 0 for none.
    """
    rng = np.random.default_rng([seed, inputs, hidden])
    rows, hidden_limit = GATES[kind] * hidden, hidden**-0.5
    limit = gain * hidden_limit
    arrays = {
        "weight_ih_l0": uniform(rng, rows, inputs, limit=limit),
        "weight_hh_l0": uniform(rng, rows, projection or hidden, limit=hidden_limit),
    }
    if bias:
        arrays["bias_ih_l0"] = uniform(rng, rows, limit=limit)
        arrays["bias_hh_l0"] = uniform(rng, rows, limit=limit)
    if initial:
        arrays["h0"] = uniform(rng, projection or hidden)
        if kind == "LSTM":
            arrays["c0"] = uniform(rng, hidden)
    if projection:
        arrays["weight_hr_l0"] = uniform(rng, projection, hidden, limit=hidden_limit)
    if peephole:
        arrays["peephole_l0"] = uniform(rng, 3 * hidden, limit=hidden_limit)
    if kind == "LSTM":
        return LSTM(**arrays)
    if kind == "GRU":
        return GRU(**arrays, reset=reset)
    return RNN(**arrays, nonlinearity=nonlinearity)


def bidirectional(
    kind: str, inputs: int, hidden: int, *, seed: int = 0, **options: Any
) -> Bidirectional:
    """Two layers of `recurrent` with weights of their own, over a sequence in both directions."""
    return Bidirectional(
        *(recurrent(kind, inputs, hidden, seed=2 * seed + k, **options) for k in range(2))
    )


def dense(inputs: int, outputs: int, activation: str = "linear", *, bias: bool = True) -> Dense:
    """A Dense layer with weights uniform in +-1 / sqrt(inputs)."""
    rng = np.random.default_rng([inputs, outputs])
    weight = uniform(rng, outputs, inputs, limit=inputs**-0.5)
    return Dense(weight, uniform(rng, outputs) if bias else None, activation)


def affine(size: int) -> Affine:
    """A scaling with values of either sign."""
    rng = np.random.default_rng(size)
    return Affine(uniform(rng, size, limit=2), uniform(rng, size, limit=2))


def layer_norm(size: int, *, bias: bool = True, eps: float = 1e-5) -> LayerNorm:
    """A normalisation with a scale of its own for each value."""
    rng = np.random.default_rng([size, 1])
    weight = uniform(rng, size) + np.float32(1)
    return LayerNorm(weight, uniform(rng, size) if bias else None, eps)


def difference(size: int) -> Difference:
    """A first difference with a learned value before the first step."""
    return Difference(size, uniform(np.random.default_rng([size, 2]), size))


def residual(back: int, size: int) -> Residual:
    """The usual skip connection: each value to its own."""
    return Residual(back, tuple(range(size)))


def standardising(mean: float, deviation: float) -> Affine:
    """One value in, taken to mean 0 and deviation 1."""
    scale = np.array([1 / deviation], np.float32)
    return Affine(scale, np.array([-mean / deviation], np.float32))


def stack(kind: str, hidden: int, layers: int, *, inputs: int = 2, bias: bool = True) -> Model:
    """Several layers of one kind with one output on top."""
    sizes = [inputs] + [hidden] * layers
    chain: list[Layer] = [
        recurrent(kind, sizes[k], hidden, seed=k, bias=bias) for k in range(layers)
    ]
    return Model((*chain, dense(hidden, 1)))


# One model for every trait that has ever gone wrong in a kernel.
MODELS: dict[str, Callable[[], Model]] = {
    **{
        f"{kind}-{hidden}": (lambda kind=kind, hidden=hidden: stack(kind, hidden, 1))
        for kind in GATES
        for hidden in HIDDEN_SIZES
    },
    "lstm-stack": lambda: Model(
        (recurrent("LSTM", 3, 40), recurrent("LSTM", 40, 17), recurrent("LSTM", 17, 5))
    ),
    "gru-stack": lambda: stack("GRU", 33, 3),
    "rnn-relu": lambda: Model((recurrent("RNN", 2, 70, nonlinearity="relu"), dense(70, 2))),
    "no-bias": lambda: stack("LSTM", 20, 2, bias=False),
    "gru-no-bias": lambda: stack("GRU", 20, 1, bias=False),
    "learned-start": lambda: Model(
        (
            recurrent("LSTM", 1, 24, initial=True),
            recurrent("GRU", 24, 9, initial=True),
            recurrent("RNN", 9, 6, initial=True),
        )
    ),
    "mixed": lambda: Model(
        (
            affine(3),
            dense(3, 19, "tanh"),
            recurrent("GRU", 19, 12),
            recurrent("LSTM", 12, 30),
            dense(30, 50, "relu"),
            dense(50, 7, "softmax"),
        )
    ),
    "saturating": lambda: Model((recurrent("LSTM", 1, 16, gain=40.0), dense(16, 1))),
    "gru-saturating": lambda: Model((recurrent("GRU", 1, 16, gain=40.0), dense(16, 1))),
    "scaled": lambda: Model(
        (
            standardising(350.0, 15.0),
            recurrent("LSTM", 1, 32),
            dense(32, 1),
            Affine(np.array([15.0], np.float32), np.array([350.0], np.float32)),
        )
    ),
    "sigmoid-head": lambda: Model((recurrent("LSTM", 2, 8), dense(8, 4, "sigmoid"))),
    "softmax-two": lambda: Model((recurrent("GRU", 2, 8), dense(8, 2, "softmax", bias=False))),
    "dense-only": lambda: Model((dense(5, 40, "tanh"), dense(40, 1))),
    "affine-only": lambda: Model((affine(20),)),
    **{
        f"lstm-projected-{hidden}-{projection}": (
            lambda h=hidden, p=projection: Model(
                (recurrent("LSTM", 2, h, projection=p), dense(p, 1)),
            )
        )
        for hidden, projection in ((1, 1), (5, 9), (17, 3), (40, 16), (130, 64))
    },
    **{
        f"lstm-peephole-{hidden}": (
            lambda hidden=hidden: Model(
                (recurrent("LSTM", 2, hidden, peephole=True), dense(hidden, 1))
            )
        )
        for hidden in (1, 8, 17, 64)
    },
    **{
        f"gru-before-{hidden}": (
            lambda hidden=hidden: Model(
                (recurrent("GRU", 2, hidden, reset="before"), dense(hidden, 1))
            )
        )
        for hidden in (1, 8, 17, 64, 130)
    },
    "lstm-everything": lambda: Model(
        (
            recurrent("LSTM", 9, 33, projection=20, peephole=True, initial=True),
            recurrent("LSTM", 20, 12, projection=30, bias=False),
            recurrent("GRU", 30, 21, reset="before", initial=True),
            recurrent("GRU", 21, 10, reset="before", bias=False),
            recurrent("LSTM", 10, 70, peephole=True, seed=1),
        )
    ),
    "peephole-saturating": lambda: Model(
        (recurrent("LSTM", 1, 16, gain=40.0, peephole=True), dense(16, 1))
    ),
    # Differences, norms and connections: sizes off the vectors, and every way to pick columns.
    **{
        f"connected-{size}": (
            lambda size=size: Model(
                (difference(size), layer_norm(size), dense(size, size), residual(2, size))
            )
        )
        for size in (1, 3, 16, 17, 65, 130)
    },
    "residual-nested": lambda: Model(
        (
            dense(3, 17),
            recurrent("GRU", 17, 17),
            layer_norm(17, bias=False),
            dense(17, 17, "tanh"),
            residual(1, 17),
            residual(4, 17),
            dense(17, 1),
        )
    ),
    "residual-24": lambda: Model((recurrent("LSTM", 1, 16), dense(16, 24), Residual(2, (0,) * 24))),
    "residual-720": lambda: Model(
        (affine(3), recurrent("GRU", 3, 20), dense(20, 720), Residual(2, (1,) * 720))
    ),
    "residual-columns": lambda: Model(
        (
            Difference(5),
            recurrent("LSTM", 5, 9),
            dense(9, 6),
            Residual(3, (3, 0, 0, 2, 1, 3)),
            dense(6, 2),
            residual(4, 2),
        )
    ),
    # What every value of the step has in common is all but lost where its mean is rounded.
    "norm-of-a-constant": lambda: Model(
        (Affine(np.zeros(33, np.float32), np.full(33, 1234.567, np.float32)), layer_norm(33))
    ),
    "norm-far-from-zero": lambda: Model(
        (Affine(np.full(20, 0.01, np.float32), np.full(20, 100, np.float32)), layer_norm(20))
    ),
    # So many weights that `run` takes spans, in which the rows that are added later must survive.
    "connected-spans": lambda: Model(
        (
            dense(50, 120, "tanh"),
            layer_norm(120),
            difference(120),
            residual(1, 120),
            dense(120, 50),
            residual(5, 50),
            Residual(6, (*range(49, 0, -1), 49)),
        )
    ),
    "lstm-bare": lambda: Model((recurrent("LSTM", 1, 48),)),
    "wide-input": lambda: Model((recurrent("LSTM", 65, 12), dense(12, 65))),
}


def model(name: str) -> Model:
    """A model of MODELS."""
    return MODELS[name]()


def stream(model: Model, steps: int, seed: int = 0) -> Array:
    """White noise with a loud stretch, one of denormals, and one of silence."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((steps, model.input_size)).astype(np.float32)
    quarter = steps // 4
    x[quarter : 2 * quarter] *= 30
    x[2 * quarter : 3 * quarter] *= np.float32(1e-38)
    x[3 * quarter : 3 * quarter + quarter // 2] = 0
    return x
