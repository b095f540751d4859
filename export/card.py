"""What an exported file says of itself: architecture, states to feed, and a check vector."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fastlstm import reference

if TYPE_CHECKING:
    from fastlstm.model import Model, State

KEY = "fastlstm"
CHECK_STEPS = 16


def state_names(state: State) -> tuple[str, str]:
    """Input and output of one state vector: h0_l2 and hN_l2 for `h` of Model.layers[2].

    In the backward half of a Bidirectional, h0_l2_reverse and hN_l2_reverse.
    """
    name, reverse, _ = state.name.partition("_reverse")
    place = f"_l{state.layer}{reverse}"
    return f"{name}0{place}", f"{name}N{place}"


def to_json(model: Model) -> str:
    """One JSON object: layers, states with their initial values, check_input and check_output."""
    x = reference.check_input(model, CHECK_STEPS)
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
    check = {"check_input": x.tolist(), "check_output": reference.run(model, x).tolist()}
    return json.dumps({"layers": layers, "states": states, **check})
