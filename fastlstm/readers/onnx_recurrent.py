"""ONNX's LSTM, GRU and RNN nodes as layers of a Model: gate order, directions, both layouts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.model import GRU, LSTM, RNN, Bidirectional
from fastlstm.readers import loops, onnx_lengths
from fastlstm.readers.elements import Elements
from fastlstm.readers.onnx_projection import silent, stands_for
from fastlstm.readers.places import Constant, Layered

if TYPE_CHECKING:
    from fastlstm.model import Array
    from fastlstm.readers.onnx_node import Node, Value

# Blocks of rows in PyTorch's order, as positions in ONNX's: i f g o from i o f c, r z n from z r h;
# peepholes i f o from i o f.
GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
PEEPHOLES = (0, 2, 1)
ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
LAYERS: dict[str, Any] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
DIRECTIONS = ("forward", "reverse", "bidirectional")


def recurrent(node: Node) -> list[Value]:
    """One LSTM, GRU or RNN node: Y, Y_h and, of an LSTM, Y_c."""
    direction = node.text("direction", "forward").lower()
    if direction not in DIRECTIONS:
        raise node.refuse(f"expected a direction of {', '.join(DIRECTIONS)}, found {direction!r}")
    batch_first = node.integer("layout", 0)
    if batch_first not in (0, 1):
        raise node.refuse(f"expected layout 0 or 1, found {batch_first}")
    x = node.traced(0)
    if len(x.shape) != 3:
        raise node.refuse(f"expected three axes of X, found shape {x.shape}")
    if batch_first:
        x = x.moved(lambda a: a.swapaxes(0, 1))
    whole, x = x, _without_zeros(x)
    # A sequence turned round and then run forward is one that is run backward.
    turned = direction != "bidirectional" and _turned(x)
    if turned:
        x = x.moved(lambda a: a[::-1])
    halves = _halves(node, x, 2 if direction == "bidirectional" else 1, bool(batch_first), whole)
    backward = (direction == "reverse") != turned
    if direction == "bidirectional":
        layer: Any = Bidirectional(*halves)
    elif backward:
        # The other half is a network of zeros, whose output is exactly 0 and taken by nobody.
        layer = Bidirectional(silent(halves[0]), halves[0])
    else:
        layer = halves[0]
    node.make(*x.shape[:2], layer.output_size)
    place = x.trace.recurrent(x, layer, node.origin)
    y = x.trace.outputs(place).moved(lambda a: a.reshape(*a.shape[:2], -1, halves[0].hidden_size))
    y = y.moved(lambda a: a.transpose(0, 2, 1, 3))
    results = [y.moved(lambda a: a[::-1]) if turned else y]
    names = [state.name for state in layer.states]
    for name in LAYERS[node.kind].state_names:
        wanted = [name, f"{name}_reverse"]
        finals = [x.trace.final(place, names.index(n)).numbers for n in wanted if n in names]
        results.append(Elements(x.trace, np.stack(finals)))
    if direction != "bidirectional" and backward:
        results = [
            results[0].moved(lambda a: a[:, 1:]),
            *(final.moved(lambda a: a[1:]) for final in results[1:]),
        ]
    if batch_first:
        results = [
            results[0].moved(lambda a: a.transpose(2, 0, 1, 3)),
            *(final.moved(lambda a: a.swapaxes(0, 1)) for final in results[1:]),
        ]
    return list(results)


def _turned(x: Elements) -> bool:
    """Whether the steps of x (time, batch, inputs) come last first."""
    trace = x.trace
    if trace.time == 1 or x.shape[0] != trace.time:
        return False
    time = trace.where(x.numbers).time
    return bool((time == np.arange(trace.time)[::-1, None, None]).all())


def paired(value: Elements, origin: str) -> Elements:
    """`value` with a layer forward and one backward over one sequence exchanged for one of both."""
    trace = value.trace
    where = trace.where(value.numbers)
    places = [trace.places[k] for k in np.unique(where.place)]
    found = [p for p in places if isinstance(p, Layered) and p.recurrent]
    for forward, backward in itertools.permutations(found, 2):
        one, other = forward.layer, backward.layer
        if not isinstance(other, Bidirectional) or any(
            array.any() for array in other.forward.arrays.values()
        ):
            continue
        if forward.parent is not backward.parent or repr(one) != repr(other.backward):
            continue
        if not isinstance(one, LSTM | GRU | RNN) or one.hidden_size != other.hidden_size:
            continue
        both = trace.layered(forward.parent, Bidirectional(one, other.backward), origin)
        numbers = value.numbers.copy()
        for place in (forward, backward):
            # The backward half has its columns in the second half already.
            here = where.place == trace.places.index(place)
            numbers[here] = trace.numbers(
                both, where.batch[here], where.time[here], where.column[here]
            )
            stands_for(trace)[place] = both
        if (where.column[where.place == trace.places.index(backward)] >= one.output_size).all():
            return Elements(trace, numbers)
    return value


def _columns(x: Elements) -> list[int]:
    """The columns of x that hold anything but the constant 0."""
    trace = x.trace
    where = trace.where(x.numbers)
    zeros = np.zeros(x.shape, bool)
    for position in np.unique(where.place):
        place, here = trace.places[position], where.place == position
        if isinstance(place, Constant):
            zeros[here] = place.values[where.column[here]] == 0
    return [k for k in range(x.shape[2]) if not zeros[..., k].all()]


def _without_zeros(x: Elements) -> Elements:
    """X without the inputs that are 0 at every step, which add nothing to any gate."""
    kept = _columns(x)
    return x if not kept else x.moved(lambda a: a[..., kept])


def _halves(node: Node, x: Elements, count: int, batch_first: bool, whole: Elements) -> list[Any]:
    """The layer of each direction; `whole` is x with the inputs that it was given as zeros."""
    kind = node.kind
    gates = len(GATES[kind])
    w, r = node.weights(1, count, None, whole.shape[2]), node.weights(2, count, None, None)
    if w is None or r is None:
        raise node.refuse("expected W and R, found nothing")
    hidden = r.shape[2]
    if hidden == 0 or w.shape[1] != gates * hidden or r.shape[1] != gates * hidden:
        raise node.refuse(
            f"expected W and R of {gates} gates with as many rows each as R has columns, found "
            f"shapes {w.shape} and {r.shape}"
        )
    if node.integer("hidden_size", hidden) != hidden:
        raise node.refuse(
            f"expected hidden_size {hidden}, by the shape {r.shape} of R, found "
            f"{node.integer('hidden_size', hidden)}"
        )
    taken = _columns(whole) if x.shape != whole.shape else list(range(whole.shape[2]))
    arrays = {"weight_ih_l0": w[..., taken], "weight_hh_l0": r}
    b = node.weights(3, count, 2 * gates * hidden)
    if b is not None:
        arrays["bias_ih_l0"], arrays["bias_hh_l0"] = np.split(b, 2, axis=1)
    arrays = {name: _blocks(array, GATES[kind]) for name, array in arrays.items()}
    if len(taken) < whole.shape[2] and node.optional(4) is not None:
        _check_held(node, _blocks(np.delete(w, taken, axis=2), GATES[kind]), arrays)
    if kind == "LSTM" and (peephole := node.weights(7, count, 3 * hidden)) is not None:
        arrays["peephole_l0"] = _blocks(peephole, PEEPHOLES)
    if kind == "LSTM" and node.integer("input_forget", 0):
        arrays = {name: _coupled(name, array) for name, array in arrays.items()}
    options = _options(node, count)
    if node.floating("clip", 0.0):
        raise node.refuse(
            f"it clips what goes into its activations at {node.floating('clip', 0.0):g}, which no "
            "layer of a Model does"
        )
    _check_lengths(node, x)
    states = _states(node, (count, x.shape[1], hidden), batch_first)
    return [
        loops.initial(
            LAYERS[kind](**{name: array[d].copy() for name, array in arrays.items()}, **options),
            {name: _half(state, d) for name, state in states.items()},
            node.origin,
        )
        for d in range(count)
    ]


def _blocks(array: Array, order: tuple[int, ...]) -> Array:
    """(directions, gates * H, ...) with its gates in another order."""
    blocks = np.split(array, len(order), axis=1)
    return np.concatenate([blocks[k] for k in order], axis=1)


def _coupled(name: str, array: Array) -> Array:
    """The forget gate as 1 - i: minus the input gate's argument goes into its sigmoid."""
    # In PyTorch's order both of weights and of peepholes, i is the first block and f the second.
    count = 3 if name == "peephole_l0" else 4
    blocks = np.split(array, count, axis=1)
    return np.concatenate([blocks[0], -blocks[0], *blocks[2:]], axis=1)


def _options(node: Node, count: int) -> dict[str, str]:
    """Settings by the node's activations; others than the layers have are refused."""
    kind, wanted = node.kind, ACTIVATIONS[node.kind]
    found = [name.lower() for name in node.texts("activations") or wanted * count]
    if kind == "RNN" and found in (["relu"] * count, ["tanh"] * count):
        return {"nonlinearity": found[0]}
    if found != wanted * count:
        raise node.refuse(
            f"expected the activations {', '.join(wanted * count)}"
            f"{' or all relu' if kind == 'RNN' else ''}, found {', '.join(found)}, which no layer "
            "of a Model has"
        )
    if kind == "GRU":
        return {"reset": "after" if node.integer("linear_before_reset", 0) else "before"}
    return {}


def _check_lengths(node: Node, x: Elements) -> None:
    lengths = node.optional(4)
    if lengths is None:
        return
    time, batch = x.shape[:2]
    if lengths.shape != (batch,) or (lengths != time).any():
        raise node.refuse(
            f"expected sequence_lens of {batch} times {time}, or as an input of the graph, found "
            f"{np.ravel(lengths)[:8].tolist()}: a Model runs each sequence to its own end"
        )


def _check_held(node: Node, columns: Array, arrays: dict[str, Array]) -> None:
    """Refuse weights of inputs that are 0 within the lengths and do anything but hold c after."""
    if (
        node.kind == "LSTM"
        and columns.shape[2] == 1
        and all(
            onnx_lengths.holds(column, others)
            for column, *others in zip(columns[..., 0], *arrays.values(), strict=True)
        )
    ):
        return
    raise node.refuse(
        f"its sequence_lens and its inputs that are 0 in full sequences: expected one such input, "
        f"of an LSTM, whose weights hold c after a sequence's end ({-onnx_lengths.HOLD:g} to gate "
        f"i, {onnx_lengths.HOLD:g} to f, 0 to g and o), found others"
    )


def _states(node: Node, shape: tuple[int, ...], batch_first: bool) -> dict[str, Any]:
    """The initial states (directions, batch, H) by name; absent ones are left out."""
    found: dict[str, Any] = {}
    for k, name in enumerate(LAYERS[node.kind].state_names, 5):
        value = node.value(k)
        if value is None:
            continue
        state: Any = value if isinstance(value, Elements) else node.weights(k)
        if batch_first and len(state.shape) == 3:
            state = (
                state.moved(lambda a: a.swapaxes(0, 1))
                if isinstance(state, Elements)
                else state.swapaxes(0, 1)
            )
        if state.shape != shape:
            raise node.refuse(f"expected shape {shape} for its initial {name}, found {state.shape}")
        found[name] = state
    return found


def _half(state: Any, direction: int) -> Any:
    if isinstance(state, Elements):
        return state.moved(lambda a: a[direction])
    return state[direction]
