"""The recurrent operators of torch on elements of a trace, cells too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.model import GRU, LSTM, RNN, Array, Bidirectional
from fastlstm.readers import loops
from fastlstm.readers.elements import Elements
from fastlstm.readers.torch_moves import Values

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlstm.readers.torch_moves import Call

KINDS: dict[str, tuple[Any, dict[str, str]]] = {
    "lstm": (LSTM, {}),
    "gru": (GRU, {}),
    "rnn_tanh": (RNN, {"nonlinearity": "tanh"}),
    "rnn_relu": (RNN, {"nonlinearity": "relu"}),
}


def _sequence(kind: str) -> Callable[..., Any]:
    make, options = KINDS[kind]

    def run(
        call: Call, x: Any, states: Any, weights: Any, has_biases: Any, num_layers: Any = None,
        dropout: Any = None, train: Any = None, bidirectional: Any = None, batch_first: Any = None,
    ) -> tuple[Values, ...]:  # fmt: skip
        if not isinstance(weights, list | tuple):
            raise call.refuse(
                "expected a tensor of all steps as its input, found a packed sequence; a Model is "
                "run on each sequence by itself, as long as it is"
            )
        if train and dropout:
            raise call.refuse("it drops values at random in eval mode too, which no Model does")
        states = [states] if isinstance(states, Values) else list(states)
        given = [_state(call, state) for state in states]
        value = call.elements(x)
        if batch_first:
            value = value.moved(lambda n: n.swapaxes(0, 1))
        directions = 2 if bidirectional else 1
        groups = _groups(call, weights, bool(has_biases), num_layers * directions)
        layers = [make(**group, **options) for group in groups]
        if len(value.shape) == 3 and value.shape[0] == 1 < value.trace.time and directions == 1:
            value, finals = _step(call, value, layers, given)
        else:
            value, finals = _whole(call, value, layers, given, directions)
        if batch_first:
            value = value.moved(lambda n: n.swapaxes(0, 1))
        ends = [Elements(value.trace, np.stack([end.numbers for end in ends])) for ends in finals]
        return tuple(call.program.values(e) for e in (value, *ends))

    return run


def _whole(
    call: Call, value: Elements, layers: list[Any], given: list[Any], directions: int
) -> tuple[Elements, list[list[Elements]]]:
    """All layers over a whole sequence: the output, and the last of each state by layer."""
    finals: list[list[Elements]] = [[] for _ in given]
    for first in range(0, len(layers), directions):
        halves = []
        for n in range(first, first + directions):
            names = (state.name for state in layers[n].states)
            own = dict(zip(names, (_part(state, n) for state in given), strict=True))
            halves.append(loops.initial(layers[n], own, call.origin))
        layer = Bidirectional(*halves) if directions == 2 else halves[0]
        place = value.trace.recurrent(value, layer, call.origin)
        value = value.trace.outputs(place)
        for d in range(directions):
            for s, ends in enumerate(finals):
                ends.append(value.trace.final(place, d * len(given) + s))
    return value, finals


def _step(
    call: Call, value: Elements, layers: list[Any], given: list[Any]
) -> tuple[Elements, list[list[Elements]]]:
    """All layers over a single step of a loop that hands their states on."""
    finals: list[list[Elements]] = [[] for _ in given]
    sample = value.moved(lambda n: n[0])
    for n, layer in enumerate(layers):
        states = [_part(state, n) for state in given]
        made = loops.call(value.trace, sample, states, layer, call.origin)
        for ends, state in zip(finals, made, strict=True):
            ends.append(state)
        sample = made[0]
    return sample.moved(lambda n: n[None]), finals


def _groups(call: Call, weights: Any, has_biases: bool, count: int) -> list[dict[str, Array]]:
    """The arrays of each layer and direction by a Model's names."""
    each = len(weights) // count
    names = ["weight_ih_l0", "weight_hh_l0"]
    names += ["bias_ih_l0", "bias_hh_l0"] * has_biases
    names += ["weight_hr_l0"] * (each - len(names))
    arrays = [_array(call, weight) for weight in weights]
    return [
        dict(zip(names, arrays[k : k + each], strict=True)) for k in range(0, each * count, each)
    ]


def _cell(kind: str) -> Callable[..., Any]:
    make, options = KINDS[kind]

    def run(
        call: Call, x: Any, states: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any = None,
        bias_hh: Any = None,
    ) -> Any:  # fmt: skip
        named = {
            "weight_ih_l0": weight_ih,
            "weight_hh_l0": weight_hh,
            "bias_ih_l0": bias_ih,
            "bias_hh_l0": bias_hh,
        }
        arrays = {name: _array(call, v) for name, v in named.items() if v is not None}
        states = [states] if isinstance(states, Values) else list(states)
        value = call.elements(x)
        given = [_state(call, state) for state in states]
        layer = make(**arrays, **options)
        made = loops.call(value.trace, value, given, layer, call.origin)
        found = tuple(call.program.values(state) for state in made)
        return found if kind == "lstm" else found[0]

    return run


def _state(call: Call, value: Values) -> Any:
    """A state as loops.py takes it: constants, or elements."""
    return call.program.decoded(value) if value.constant else call.elements(value)


def _part(state: Any, k: int) -> Any:
    return state.moved(lambda n: n[k]) if isinstance(state, Elements) else state[k]


def _array(call: Call, value: Values) -> Array:
    if not value.constant:
        raise call.refuse("its weights are computed from the input, which no layer of a Model has")
    return call.program.decoded(value).astype(np.float32)


RECURRENT: dict[str, Callable[..., Any]] = {
    **{kind: _sequence(kind) for kind in KINDS},
    **{f"{kind}_cell": _cell(kind) for kind in KINDS},
}
