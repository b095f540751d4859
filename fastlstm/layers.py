"""The layers of a Model: float32 arrays under PyTorch's names, in its shapes and gate order.

Shapes are checked once, when a layer is made. No torch object and no kernel layout ever appears in
recurrent_layers.py and plain_layers.py, which define them, or here, where they are found by name.
"""

from __future__ import annotations

from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from fastlstm.base_layer import SETTINGS
from fastlstm.errors import ModelError
from fastlstm.plain_layers import Affine, Dense, Difference, LayerNorm, Residual
from fastlstm.recurrent_layers import CELLS, GRU, LSTM, RNN, Bidirectional

if TYPE_CHECKING:
    from collections.abc import Mapping

Layer: TypeAlias = (
    LSTM | GRU | RNN | Bidirectional | Dense | Affine | LayerNorm | Difference | Residual
)
LAYERS: Mapping[str, type[Layer]] = MappingProxyType(
    {
        layer.__name__: layer
        for layer in (
            LSTM, GRU, RNN, Bidirectional, Dense, Affine, LayerNorm, Difference, Residual
        )
    }
)  # fmt: skip


def build(kind: str, arrays: Mapping[str, Any], options: Mapping[str, Any]) -> Layer:
    """The layer of that `kind`, `arrays` and `options`: what those three properties are taken back.

    Raises ModelError for a kind, an option or an array that such a layer does not have, and for
    one that it must have.
    """
    if kind not in LAYERS:
        raise ModelError(f"expected a kind among {', '.join(LAYERS)}, found {kind!r}")
    known: list[str] = []
    layer: Any = LAYERS[kind]
    if kind == "Bidirectional":
        known.append("cell")
        layer = CELLS.get(str(options.get("cell")), LSTM)
    known += [field.name for field in fields(layer) if field.type in SETTINGS]
    if sorted(options) != sorted(known):
        raise ModelError(
            f"{kind}: expected the options ({', '.join(known) or 'none'}), "
            f"found ({', '.join(sorted(options)) or 'none'})"
        )
    try:
        if kind == "Bidirectional":
            return Bidirectional.from_arrays(arrays, **options)
        built: Layer = layer(**arrays, **options)
    except TypeError:
        raise ModelError(
            f"{kind}: the arrays ({', '.join(sorted(arrays)) or 'none'}) are not those of such a "
            "layer"
        ) from None
    return built
