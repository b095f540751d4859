"""Model: a chain of layers, the one thing that crosses from any source to any road."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlstm.base_layer import Array
from fastlstm.errors import ModelError
from fastlstm.layers import LAYERS, Layer
from fastlstm.plain_layers import ACTIVATIONS, Affine, Dense, Difference, LayerNorm, Residual
from fastlstm.recurrent_layers import GRU, LSTM, NONLINEARITIES, RESETS, RNN, Bidirectional

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike

    from fastlstm.stream import Stream

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LAYERS",
    "LSTM",
    "NONLINEARITIES",
    "RESETS",
    "RNN",
    "Affine",
    "Array",
    "Bidirectional",
    "Dense",
    "Difference",
    "Layer",
    "LayerNorm",
    "Model",
    "Residual",
    "State",
]


class State(NamedTuple):
    """One state vector of one recurrent layer: what a stream carries from step to step."""

    layer: int  # position in Model.layers
    name: str  # "h", "c" or "x", with "_reverse" after it in the backward half of a Bidirectional
    size: int
    initial: Array  # (size,), zeros unless the layer learned it


@dataclass(frozen=True, eq=False)
class Model:
    """A chain of layers, each feeding the next: the one thing that every road starts from.

    Immutable, and safe to share between any number of streams and threads. `metadata` is free:
    any JSON object, kept in the model file as it is. Raises ModelError where sizes do not fit.
    """

    layers: tuple[Layer, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "layers", tuple(self.layers))
        except TypeError:
            raise ModelError(
                f"Model: expected a sequence of layers, found {type(self.layers).__name__}"
            ) from None
        if not self.layers:
            raise ModelError("Model: expected at least one layer, found none")
        for position, layer in enumerate(self.layers):
            # A subclass may compute anything, and no road would know of it.
            if type(layer) not in LAYERS.values():
                raise ModelError(
                    f"Model: expected layer {position} to be one of {', '.join(LAYERS)}, "
                    f"found {type(layer).__name__}"
                )
            if position:
                self._check_joint(position)
            if isinstance(layer, Residual):
                self._check_source(position, layer)
        try:
            copy = json.loads(json.dumps(dict(self.metadata), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ModelError(f"Model.metadata: expected a JSON object, found: {error}") from None
        object.__setattr__(self, "metadata", MappingProxyType(copy))

    def _check_joint(self, position: int) -> None:
        """Refuse a layer that does not take what the one before it puts out."""
        previous, layer = self.layers[position - 1 : position + 1]
        if layer.input_size == previous.output_size:
            return
        where, wanted = f"layer {position} ({layer.kind})", f"an input of {previous.output_size}"
        found = f"{layer.input_size}"
        if layer.arrays and not isinstance(layer, Difference):
            name, array = next(iter(layer.arrays.items()))
            where += f".{name}"
            wanted = f"shape {(*array.shape[:-1], previous.output_size)}"
            found = f"{array.shape}"
        raise ModelError(
            f"Model: {where}: expected {wanted}, because layer {position - 1} "
            f"({previous.kind}) puts out {previous.output_size} values, found {found}"
        )

    def _check_source(self, position: int, layer: Residual) -> None:
        """Refuse a residual connection that begins nowhere, or at a value that is too short."""
        if layer.back > position:
            raise ModelError(
                f"Model: layer {position} (Residual).back: expected at most {position}, because "
                f"there are no more layers before it, found {layer.back}"
            )
        source = self.layers[position - layer.back]
        if max(layer.columns) >= source.input_size:
            raise ModelError(
                f"Model: layer {position} (Residual).columns: expected columns below "
                f"{source.input_size}, because layer {position - layer.back} ({source.kind}) takes "
                f"{source.input_size} values, found {max(layer.columns)}"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled; worker processes and deepcopy need a Model to be.
        return Model, (self.layers, dict(self.metadata))

    @property
    def input_size(self) -> int:
        """Values in one sample."""
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:
        """Values in one output."""
        return self.layers[-1].output_size

    @property
    def num_parameters(self) -> int:
        """Numbers stored in all layers."""
        return sum(array.size for layer in self.layers for array in layer.arrays.values())

    @property
    def states(self) -> tuple[State, ...]:
        """The state vectors in layer order, `h` before `c`."""
        return tuple(
            State(k, name, len(initial), initial)
            for k, layer in enumerate(self.layers)
            for name, initial in layer.states
        )

    @property
    def bidirectional(self) -> bool:
        """Whether a layer needs the whole sequence, so that there can be no live stream."""
        return any(isinstance(layer, Bidirectional) for layer in self.layers)

    # The methods below import when called: a Model knows nothing of files or kernels, and
    # `model.stream()` is what a user looks for first.

    def save(self, path: str | Path) -> Path:
        """Write the model to one .safetensors file, whole or not at all; return its path."""
        from fastlstm import model_file

        return model_file.save(self, path)

    def stream(self) -> Stream:
        """Start one live sequence in this model's initial state.

        Raises ModelError for a bidirectional model: use `run`, on whole sequences.
        """
        from fastlstm.stream import Stream

        return Stream(self)

    def run(self, x: ArrayLike) -> Array:
        """A whole sequence from the initial state: (time, input_size) -> (time, output_size).

        In the compiled kernels, bidirectional layers too. Raises InputError for bad input.
        """
        from fastlstm.sequence import run

        return run(self, x).output
