"""What an exported file says of itself: all that is needed to run it without this package."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fastlstm import reference
from fastlstm.model import Affine
from fastlstm.verify import truth

if TYPE_CHECKING:
    from fastlstm.model import Layer, Model, State

KEY = "fastlstm"
CHECK_STEPS = 16


def state_names(state: State) -> tuple[str, str]:
    """Input and output of one state vector: h0_l2 and hN_l2 for `h` of Model.layers[2].

    In the backward half of a Bidirectional, h0_l2_reverse and hN_l2_reverse.
    """
    name, reverse, _ = state.name.partition("_reverse")
    place = f"_l{state.layer}{reverse}"
    return f"{name}0{place}", f"{name}N{place}"


def to_json(model: Model, **more: Any) -> str:
    """One JSON object, with `more` of what a target has to say.

    `input_size` and `output_size`; `layers` with their kinds, sizes and settings; `states`, each
    with the names of its input and output, its size and its initial value; `scaling`, the Affine
    layers at both ends (null where there is none), which the network applies itself: x goes in and
    y comes out in the units of the data; `metadata`, the Model's own, such as the names of
    columns; `check_input` and `check_output`, a sequence from the initial state and what the
    float64 reference makes of it, with `check_bound`, the greatest difference from that which a
    float32 runtime may show.
    """
    true = truth(model, reference.check_input(model, CHECK_STEPS))
    layers = [
        {
            "kind": layer.kind,
            "input_size": layer.input_size,
            "output_size": layer.output_size,
            **layer.options,
        }
        for layer in model.layers
    ]
    states = [
        {
            "input": state_names(state)[0],
            "output": state_names(state)[1],
            "size": state.size,
            "initial": state.initial.tolist(),
        }
        for state in model.states
    ]
    return json.dumps(
        {
            "input_size": model.input_size,
            "output_size": model.output_size,
            "layers": layers,
            "states": states,
            "scaling": {
                "input": _scaling(model.layers[0]),
                "output": _scaling(model.layers[-1]) if len(model.layers) > 1 else None,
            },
            "metadata": dict(model.metadata),
            **more,
            "check_input": true.x.tolist(),
            "check_output": true.output.tolist(),
            "check_bound": true.bound,
        }
    )


def _scaling(layer: Layer) -> dict[str, list[float]] | None:
    if not isinstance(layer, Affine):
        return None
    return {"scale": layer.scale.tolist(), "shift": layer.shift.tolist()}
