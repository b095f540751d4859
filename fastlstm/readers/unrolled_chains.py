"""Steps of an unrolled loop, each with the state of the step before, into one recurrent layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ModelError
from fastlstm.model import GRU, LSTM, RNN
from fastlstm.readers.elements import Elements
from fastlstm.readers.unrolled_cells import PEEPHOLES, Step, steps
from fastlstm.readers.unrolled_formulas import Combination, Formulas, Mismatch, Vector

if TYPE_CHECKING:
    from fastlstm.model import Array

CELLS: dict[str, Any] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
# What a matrix product, or a sum of constants, loses in float32, for each term of it.
ROUNDING = 2.0**-23


@dataclass(frozen=True)
class Chain:
    """All steps of a loop, the first that was run first, and the layer that they are."""

    layer: Any  # with its initial state
    steps: tuple[Step, ...]
    inputs: tuple[Vector, ...]  # what each step takes from outside
    fed: dict[str, Vector]  # the given states that the first step takes, by name


@dataclass
class _Weights:
    """One step's weights, gate by gate in the layer's order; None for gates that it has not."""

    inputs: Vector
    ih: list[Array | None]
    hh: list[Array | None]
    biases: list[dict[str, list[Array]]]  # "ih", "hh", and "" for those of neither product
    peephole: list[Array | None]


def chain(formulas: Formulas, h: Vector, kind: str) -> Chain | None:
    """The loop whose last output is h, or None. Raises Mismatch where it is nearly one."""
    best: Mismatch | None = None
    for last in steps(formulas, h, kind):
        try:
            return _followed(formulas, last)
        except Mismatch as mismatch:
            # Without a state it may look like many a cell.
            depth = 0 if last.h_before is None else mismatch.depth
            if best is None or depth > best.depth:
                best = Mismatch(str(mismatch), depth)
    if best is not None:
        raise best
    return None


def _followed(formulas: Formulas, last: Step) -> Chain:
    """From the last step back to the first, all with the same weights."""
    found = [last]
    missing = [gate for gate in last.gates if gate not in last.sums]
    if missing:
        raise Mismatch(
            f"it looks like {_a(last.kind)} without gate {', '.join(missing)}, which no layer of a "
            "Model is, or like a first step alone",
            depth=0,
        )
    try:
        top = _weights(formulas, last)
        inputs = [top.inputs]
        while not _first(formulas, found[-1]):
            step, weights = _before(formulas, found[-1], last, top)
            found.append(step)
            inputs.append(weights.inputs)
        first = found[-1]
        if len(found) == 1 and first.h_before is None:
            raise Mismatch(
                f"it looks like one step of {_a(last.kind)} without a step before it, whose "
                "recurrent weights are unknown then: expected the state of the step before as "
                f"what the same formula made{_taken(formulas, last)}"
            )
        biases = [_two_biases(last, k, parts) for k, parts in enumerate(top.biases)]
        layer = _layer(last, top, biases)
        starts = _starts(formulas, first, layer)
        arrays = {f"{name}0": start for name, start in starts.items() if start.any()}
        _check_first(formulas, first, layer, starts, top)
    except Mismatch as mismatch:
        raise Mismatch(str(mismatch), len(found)) from None
    except ModelError as error:
        raise Mismatch(str(error), len(found)) from None
    fed = {
        name: vector
        for name, vector in (("h", first.h_before), ("c", first.c_before))
        if vector is not None
    }
    layer = type(layer)(**{**_arguments(layer), **arrays})
    return Chain(layer, tuple(found[::-1]), tuple(inputs[::-1]), fed)


def _a(kind: str) -> str:
    return "a GRU" if kind == "GRU" else f"an {kind}"


def _taken(formulas: Formulas, step: Step) -> str:
    """What a step takes from steps of the loop that is not its own state, for messages."""
    names = {
        place.origin: None
        for _, combination in step.sums.values()
        for linear in combination.linear
        for place, _, _ in formulas.sites(linear.source)
        if place.momentary
    }
    if step.c_before is not None:
        names.update((place.origin, None) for place, _, _ in formulas.sites(step.c_before))
    return f", found {', '.join(names)}" if names else ""


def _first(formulas: Formulas, step: Step) -> bool:
    """Whether nothing but constants and given states stand where a state of the loop would."""
    return all(state is None or formulas.fed(state) for state in (step.h_before, step.c_before))


def _before(formulas: Formulas, step: Step, last: Step, top: _Weights) -> tuple[Step, _Weights]:
    """The step whose state `step` takes, with the weights of the last one."""
    if step.h_before is None:
        raise Mismatch(
            f"it looks like {_a(step.kind)} whose gates do not take its state h of the step before"
        )
    reason = None
    for found in steps(formulas, step.h_before, last.kind):
        before = step.c_before
        if before is not None and (found.c is None or not np.array_equal(found.c, before)):
            reason = reason or "the c that it takes is not the one that belongs to its h"
            continue
        try:
            weights = _weights(formulas, found)
        except Mismatch as mismatch:
            reason = reason or f"one of its steps is none: {mismatch}"
            continue
        difference = _difference(found, weights, last, top, _first(formulas, found))
        if difference is None:
            return found, weights
        reason = reason or difference
    if reason is None:
        names = {place.origin: None for place, _, _ in formulas.sites(step.h_before)}
        reason = f"the state before comes from {', '.join(names)}, which is none of its steps"
    raise Mismatch(
        f"it looks like {_a(last.kind)}, but {reason}; a Model has one cell for all steps and "
        "hands its state on as it is"
    )


def _difference(
    step: Step, weights: _Weights, last: Step, top: _Weights, first: bool
) -> str | None:
    """What sets a step apart from the last one; None where they are the same cell."""
    options = {k: v for k, v in step.options.items() if last.options.get(k) != v}
    if options or not _equal(step.projection, last.projection):
        return "one of its steps has another formula than the last"
    if len(weights.inputs) != len(top.inputs):
        return "one of its steps takes another number of inputs than the last"
    for k, gate in enumerate(step.gates):
        if gate not in step.sums:
            if first:
                continue
            return f"one of its steps has no gate {gate}"
        if not _equal(weights.ih[k], top.ih[k]):
            return f"gate {gate} has other input weights in one step than in the last"
        constant = gate == "n" and step.reset_matrix is not None
        recurrent = step.reset_matrix if constant else weights.hh[k]
        if first and recurrent is None:
            continue
        if not (_equal(recurrent, top.hh[k]) and _equal(weights.peephole[k], top.peephole[k])):
            return f"gate {gate} has other recurrent weights in one step than in the last"
        if not first:
            pairs = (_two_biases(one, k, w.biases[k]) for one, w in ((step, weights), (last, top)))
            if not all(_equal(a, b) for a, b in zip(*pairs, strict=True)):
                return f"gate {gate} has another bias in one step than in the last"
    return None


def _equal(one: Array | None, other: Array | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


# One step's weights


def _weights(formulas: Formulas, step: Step) -> _Weights:
    """Take its sums apart into what acts on the input and what acts on the state."""
    state = np.zeros(0, np.int64) if step.h_before is None else step.h_before
    order: dict[int, int] = {}
    parts: list[Any] = []
    for gate in step.gates:
        if gate not in step.sums:
            parts.append(None)
            continue
        sign, combination = step.sums[gate]
        part = _parts(formulas, step, gate, combination, state)
        if gate == "n" and step.recurrent is not None:
            inner = _parts(formulas, step, gate, step.recurrent, state)
            if inner[0]:
                raise Mismatch("it looks like a GRU whose reset gate acts on its input too")
            part[1].update(inner[1])
            part[2]["hh"] += [*inner[2]["hh"], *inner[2][""]]
        for number in part[0]:
            order.setdefault(number, len(order))
        parts.append((sign, *part))
    if not order:
        raise Mismatch(f"it looks like {_a(step.kind)} that takes no input")
    return _Weights(
        np.fromiter(order, np.int64),
        [p and _matrix(p[0], p[1], list(order), len(p[4])) for p in parts],
        [
            p and _matrix(p[0], p[2], state.tolist(), len(p[4])) if len(state) else None
            for p in parts
        ],
        [
            p and {k: [p[0] * a if p[0] < 0 else a for a in v] for k, v in p[3].items()}
            for p in parts
        ],
        [p and (None if p[5] is None else p[0] * p[5]) for p in parts],
    )


def _parts(
    formulas: Formulas, step: Step, gate: str, combination: Combination, state: Vector
) -> list[Any]:
    """[columns by input element, columns by state element, biases, rows, peephole]."""
    columns: dict[int, Array] = {}
    recurrent: dict[int, Array] = {}
    biases: dict[str, list[Array]] = {"ih": [], "hh": [], "": list(combination.constants)}
    known = set(state.tolist())
    for matrix, source, bias in combination.linear:
        inside = [number in known for number in source.tolist()]
        for number, within, column in zip(source.tolist(), inside, matrix.T, strict=True):
            taken = recurrent if within else columns
            if number in taken:
                raise Mismatch(
                    f"it looks like {_a(step.kind)} whose gate {gate} takes a value through two "
                    "matrices, the sum of which float32 would round"
                )
            taken[number] = column
        if bias is not None:
            biases["hh" if all(inside) else "ih"].append(bias)
    peephole = None
    for factor, source in combination.scaled:
        seen = step.c if gate == "o" else step.c_before
        if seen is None or not np.array_equal(source, seen) or gate == "g" or peephole is not None:
            raise Mismatch(
                f"it looks like {_a(step.kind)} whose gate {gate} adds values that are neither a "
                "matrix product nor a constant"
            )
        peephole = factor
    rows = next((len(m) for m, _, _ in combination.linear), None)
    if rows is None:
        rows = len(step.c if step.c is not None else step.h)
    return [columns, recurrent, biases, np.empty(rows), peephole]


def _matrix(sign: int, columns: dict[int, Array], order: list[int], rows: int) -> Array:
    """The columns in order, zeros where there are none."""
    matrix = np.zeros((rows, len(order)), np.float32)
    for k, number in enumerate(order):
        if number in columns:
            matrix[:, k] = -columns[number] if sign < 0 else columns[number]
    return matrix


def _two_biases(step: Step, gate: int, parts: dict[str, list[Array]]) -> tuple[Any, Any]:
    """One gate's bias beside the input's product and beside the state's, each None for none.

    Those of neither go where there is room, unless it is a GRU's n: what is within the product
    with r stands apart there.
    """
    ih, hh, loose = parts["ih"], parts["hh"], parts[""]
    apart = step.gates[gate] == "n" and step.options.get("reset") == "after"
    slots = [list(ih), list(hh)]
    for bias in loose:
        slots[0 if apart or not slots[0] else int(not slots[1])].append(bias)
    return _one(step, gate, slots[0]), _one(step, gate, slots[1])


def _one(step: Step, gate: int, biases: list[Array]) -> Array | None:
    if not biases:
        return None
    exact = np.sum(np.asarray(biases, np.float64), axis=0)
    total: Array = exact.astype(np.float32) if len(biases) > 1 else biases[0]
    if (total != exact).any():
        raise Mismatch(
            f"gate {step.gates[gate]} adds {len(biases)} constants, more than the two biases of a "
            "layer, and float32 would round their sum"
        )
    return total


def _layer(step: Step, weights: _Weights, biases: list[tuple[Any, Any]]) -> Any:
    """The recurrent layer, without an initial state."""
    rows = len(weights.ih[0])  # type: ignore[arg-type]
    zeros = np.zeros(rows, np.float32)
    options: dict[str, Any] = dict(step.options)
    if any(bias is not None for pair in biases for bias in pair):
        for name, row in (("bias_ih_l0", 0), ("bias_hh_l0", 1)):
            found = [zeros if pair[row] is None else pair[row] for pair in biases]
            options[name] = np.concatenate(found)
    if step.projection is not None:
        options["weight_hr_l0"] = step.projection
    if any(peephole is not None for peephole in weights.peephole):
        seen = [weights.peephole[step.gates.index(gate)] for gate in PEEPHOLES]
        options["peephole_l0"] = np.concatenate([zeros if p is None else p for p in seen])
    assert all(block is not None for block in weights.hh)
    return CELLS[step.kind](np.concatenate(weights.ih), np.concatenate(weights.hh), **options)  # type: ignore[arg-type]


def _arguments(layer: Any) -> dict[str, Any]:
    return {**layer.arrays, **layer.options}


# The first step


def _starts(formulas: Formulas, first: Step, layer: Any) -> dict[str, Array]:
    """The state that the first step begins with, zeros where nothing else can be seen."""
    found: dict[str, Array] = {}
    for name, state in (("h", first.h_before), ("c", first.c_before)):
        if state is not None:
            start = formulas.trace.start(Elements(formulas.trace, state))
            assert start is not None
            found[name] = start
    zeros = {state.name: state.initial for state in layer.states}
    return {**zeros, **first.starts, **found}


def _check_first(
    formulas: Formulas, first: Step, layer: Any, starts: dict[str, Array], top: _Weights
) -> None:
    """Its constants must be the biases and what the weights make of the state it begins with."""
    weights = _weights(formulas, first)
    size = layer.hidden_size
    known = first.h_before is not None
    h = starts["h"].astype(np.float64)
    for k, gate in enumerate(first.gates):
        if gate not in first.sums:
            continue
        rows = slice(k * size, (k + 1) * size)
        here = {name: list(arrays) for name, arrays in weights.biases[k].items()}
        there = top.biases[k]
        w_hh = layer.weight_hh_l0[rows].astype(np.float64)
        apart = gate == "n" and layer.options.get("reset") == "after"
        if gate == "n" and layer.options.get("reset") == "before" and not known:
            w_hh = np.zeros_like(w_hh)  # it stands in the formula as a product of its own
        peephole = np.zeros(size)
        seen = top.peephole[k]
        if seen is not None and gate != "o" and first.c_before is None:
            peephole = seen * starts["c"].astype(np.float64)
        added = peephole if known else w_hh @ h + peephole
        scale = np.abs(peephole) if known else np.abs(w_hh) @ np.abs(h) + np.abs(peephole)
        if apart and "r" not in first.sums:
            # All that r multiplies is zero.
            groups: list[tuple[str, ...]] = [("ih", "")]
            if (added + _total(there["hh"], size)).any():
                raise _begins(first, gate)
        else:
            groups = [("ih", ""), ("hh",)] if apart else [("ih", "hh", "")]
        for names in groups:
            mine = [a for name in names for a in here[name]]
            theirs = [a for name in names for a in there[name]]
            more = added if not apart or names == ("hh",) else np.zeros(size)
            if not _same_total(mine, theirs, more, scale, len(h)):
                raise _begins(first, gate)


def _total(arrays: list[Array], size: int) -> Any:
    return sum((a.astype(np.float64) for a in arrays), np.zeros(size))


def _same_total(mine: list[Array], theirs: list[Array], added: Any, scale: Any, terms: int) -> bool:
    """Whether constants are those of other steps and `added`, to the bit where that is zero."""
    size = len(added)
    one, other = _total(mine, size), _total(theirs, size)
    if added.any():
        bound = (terms + 4) * ROUNDING * (scale + _total([np.abs(a) for a in theirs], size))
        return bool((np.abs(one - other - added) <= bound).all())
    sets = [sorted(a.tobytes() for a in arrays if a.any()) for arrays in (mine, theirs)]
    return sets[0] == sets[1] or bool((one == other.astype(np.float32)).all())


def _begins(first: Step, gate: str) -> Mismatch:
    return Mismatch(
        f"it looks like {_a(first.kind)}, but gate {gate} has other constants in the first step "
        "than in the last: another bias, or an initial state that was folded away"
    )
