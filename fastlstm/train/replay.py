"""What a model puts out at chosen rows of a series: as a live stream would, or from fresh windows.

The twin computes in float64 what a stream is given as float32 samples. Memory is bounded.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastlstm.errors import SeriesError
from fastlstm.train.baselines import begins
from fastlstm.train.cells import Recurrent
from fastlstm.train.layout import Layout, network_inputs
from fastlstm.train.network import Network
from fastlstm.train.plain_layers import Difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastlstm.model import Model
    from fastlstm.train.cells import States
    from fastlstm.train.series import Series
    from fastlstm.train.split import Segment

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]

# Time steps, of all sequences side by side, in one call; the state is carried from call to call.
CHUNK = 4096
# Sequences side by side.
ABREAST = 256
# Numbers that one layer may put out in one call over windows: 128 MiB in float64.
AT_ONCE = 1 << 24


def origins(segments: Sequence[Segment], layout: Layout, *, only_last: bool = False) -> Rows:
    """The rows at which all that is forecast lies in a segment, in ascending order.

    A row r forecasts the targets r + layout.ahead. Forecasts of the same step need the target one
    step before, for the naive forecast beside them. `only_last` takes one origin a segment: whole
    sequences of which only the last output counts.
    """
    first, last = layout.ahead[0], layout.ahead[-1]
    found = []
    for segment in segments:
        low = max(segment.begin + (first == 0), segment.first - first)
        high = segment.end - last
        if low < high:
            found.append(np.arange(high - 1 if only_last else low, high))
    return np.concatenate([*found, np.empty(0, int)]).astype(np.int64)


def twin(model: Model) -> Network:
    """The model as a torch network in float64."""
    if model.bidirectional:
        raise SeriesError(
            "this model has a bidirectional layer, whose output at any step depends on all samples "
            "to come, so it forecasts nothing: evaluate a model without one"
        )
    return Network.from_model(model).double()


def samples(series: Series, layout: Layout) -> Tensor:
    """What goes in at each step, rounded to float32 as a stream takes it, in float64."""
    return torch.from_numpy(network_inputs(series, layout).astype(np.float32).astype(np.float64))


def streamed(model: Model, series: Series, layout: Layout, rows: Rows) -> Floats:
    """Every sequence as one stream from its beginning: (rows, ahead, targets, quantiles).

    `rows` ascend. No stream goes beyond the last row asked for in its sequence.
    """
    network, x = twin(model), samples(series, layout)
    place = np.full(len(series), -1)
    place[rows] = np.arange(len(rows))
    # The sequences that run equally far run side by side.
    ends = dict(zip(begins(series, rows).tolist(), rows.tolist(), strict=True))
    alike = defaultdict(list)
    for begin, last in ends.items():
        alike[last + 1 - begin].append(begin)
    found = np.empty((len(rows), model.output_size))
    chunk = min(CHUNK, AT_ONCE // model.output_size)
    with torch.inference_mode():
        for length, every in alike.items():
            for k in range(0, len(every), ABREAST):
                group = np.array(every[k : k + ABREAST])
                step = max(1, chunk // len(group))
                state = None
                for time in range(0, length, step):
                    there = group[:, None] + np.arange(time, min(time + step, length))
                    y, state = network(x[there], state)
                    places = place[there]
                    found[places[places >= 0]] = y.numpy()[places >= 0]
    return found.reshape(-1, *layout.shape)


def windowed(model: Model, series: Series, layout: Layout, rows: Rows, length: int) -> Floats:
    """At each row a fresh state and the last `length` samples: (rows, ahead, targets, quantiles).

    Where a sequence has not so many before a row, those that it has.
    """
    network, x = twin(model), samples(series, layout)
    short = rows - begins(series, rows) + 1 < length
    found = np.empty((len(rows), *layout.shape))
    if short.any():
        # From the beginning of the sequence on, which is what a stream does.
        found[short] = streamed(model, series, layout, rows[short])
    full = np.flatnonzero(~short)
    with torch.inference_mode():
        at_once = windows_at_once(model, length)
        for k in range(0, len(full), at_once):
            part = full[k : k + at_once]
            y, _ = run_windows(network, x, rows[part], length)
            found[part] = y.numpy().reshape(-1, *layout.shape)
    return found


def run_windows(network: Network, x: Tensor, rows: Rows, length: int) -> tuple[Tensor, States]:
    """The output at the last step of the windows that end at `rows`, and the state after it."""
    windows = x[rows[:, None] + np.arange(1 - length, 1)]
    state = None
    if length > 1:
        # Before the last step only the state counts: the head, which may put out hundreds of
        # values at each step, would cost more than all the rest.
        _, state = Network(network.layers[: _stateful(network.layers)])(windows[:, :-1])
    y, state = network(windows[:, -1:], state)
    return y[:, -1], state


def _stateful(layers: Iterable[Any]) -> int:
    """How many layers there are up to the last one that has a state."""
    found = [k for k, layer in enumerate(layers) if isinstance(layer, Recurrent | Difference)]
    return found[-1] + 1 if found else 0


def windows_at_once(model: Model, length: int) -> int:
    """How many windows fit into one call's memory."""
    stateful = {state.layer for state in model.states}
    layers = model.layers[: max(stateful, default=0) + 1]
    widest = max(max(layer.input_size, layer.output_size) for layer in layers)
    # An LSTM holds its four gates too.
    return max(1, min(AT_ONCE // (4 * widest * length), AT_ONCE // model.output_size))


def states_at(network: Network, x: Tensor, series: Series, rows: Rows) -> tuple[Tensor, States]:
    """The output (rows, output_size) and the states after each row, of one stream a sequence.

    `rows` ascend.
    """
    outputs: list[Tensor] = []
    states: list[States] = []
    place, state = -1, None
    for begin, row in zip(begins(series, rows).tolist(), rows.tolist(), strict=True):
        if place < begin:
            place, state = begin, None
        for time in range(place, row + 1, CHUNK):
            y, state = network(x[None, time : min(time + CHUNK, row + 1)], state)
        assert state is not None
        place = row + 1
        outputs.append(y[0, -1])
        states.append(state)
    together = tuple(torch.cat(vectors) for vectors in zip(*states, strict=True))
    return torch.stack(outputs), together
