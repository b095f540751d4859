"""The layers that a recipe may name, as tables: what each takes, and what it is by default."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

AtLeast0 = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]


class Table(BaseModel):
    """Any table of a recipe."""

    # strict: "16" is no number and true is no 1, so that a typo is not read as something else.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _one_way(bidirectional: bool) -> bool:
    if bidirectional:
        raise ValueError(
            "expected false, found true: a recipe trains a forecaster, and at each step the "
            "backward half would have seen the very samples that are to be forecast; build such a "
            "network with fastlstm.train.Network.from_sizes"
        )
    return bidirectional


# Here only to be refused with its reason, so it is never written out.
OneWay = Annotated[bool, AfterValidator(_one_way), Field(exclude=True)]


class LSTMLayer(Table):
    """An LSTM layer; `proj_size` 0 is no projection."""

    kind: Literal["LSTM"]
    hidden_size: AtLeast1
    bias: bool = True
    proj_size: AtLeast0 = 0
    peephole: bool = False
    bidirectional: OneWay = False


class GRULayer(Table):
    """A GRU layer; `reset` says where its reset gate acts, seen from the matrix product."""

    kind: Literal["GRU"]
    hidden_size: AtLeast1
    bias: bool = True
    reset: Literal["after", "before"] = "after"
    bidirectional: OneWay = False


class Resonant(Table):
    """First weights of an RNN as a bank of filters: see resonant.py.

    `memory` is the longest time constant and `periods` the seasons, both in steps; `scale` is the
    size of the input weights, for tanh small enough to keep it almost linear.
    """

    memory: Annotated[float, Field(ge=2)]
    periods: Annotated[tuple[Annotated[float, Field(gt=2)], ...], Field(strict=False)] = ()
    scale: Annotated[float, Field(gt=0)] = 0.02


class RNNLayer(Table):
    """An RNN layer; `resonant` gives it first weights that remember."""

    kind: Literal["RNN"]
    hidden_size: AtLeast1
    nonlinearity: Literal["tanh", "relu"] = "tanh"
    bias: bool = True
    resonant: Resonant | None = None
    bidirectional: OneWay = False


class DenseLayer(Table):
    """A Dense layer."""

    kind: Literal["Dense"]
    output_size: AtLeast1
    activation: Literal["linear", "relu", "tanh", "sigmoid", "softmax"] = "linear"
    bias: bool = True


class LayerNormLayer(Table):
    """A LayerNorm over the values of each step."""

    kind: Literal["LayerNorm"]
    eps: Annotated[float, Field(ge=1e-12)] = 1e-5
    bias: bool = True


class BatchNormLayer(Table):
    """A BatchNorm over all steps of a batch; the model holds the Affine that it folds into."""

    kind: Literal["BatchNorm"]


class DifferenceLayer(Table):
    """What changed since the last step."""

    kind: Literal["Difference"]


class ResidualLayer(Table):
    """An inner chain, to whose output is added what goes in.

    `add` "input" adds value by value, so the chain must put out as many as go in. "target" adds to
    each output the present value of the column that it forecasts; only around the whole network.
    """

    kind: Literal["Residual"]
    layers: Annotated[tuple[LayerTable, ...], Field(strict=False, min_length=1)]
    add: Literal["input", "target"] = "input"


LayerTable: TypeAlias = Annotated[
    LSTMLayer
    | GRULayer
    | RNNLayer
    | DenseLayer
    | LayerNormLayer
    | BatchNormLayer
    | DifferenceLayer
    | ResidualLayer,
    Field(discriminator="kind"),
]
ResidualLayer.model_rebuild()
LAYERS: dict[str, type[Table]] = {
    "LSTM": LSTMLayer,
    "GRU": GRULayer,
    "RNN": RNNLayer,
    "Dense": DenseLayer,
    "LayerNorm": LayerNormLayer,
    "BatchNorm": BatchNormLayer,
    "Difference": DifferenceLayer,
    "Residual": ResidualLayer,
}
