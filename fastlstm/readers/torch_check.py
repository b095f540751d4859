"""Whether a Model computes what a torch module computes: both run in float64 and are compared.

A second proof beside the trace: over more than one sequence and over other lengths than the trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.readers import torch_copies

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from fastlstm.model import Model
    from fastlstm.readers.torch_outputs import Arrangement
    from fastlstm.readers.torch_ways import Way

# The reference and torch float64 agree to 1e-12; anything structural is far beyond this.
TOLERANCE = 1e-9
# Seed, scale of the input, sequences and steps: other numbers than those of the trace, a single
# sequence as a stream is one, large inputs too.
RUNS = ((1, 1.0, 3, 11), (2, 30.0, 1, 5))


def check(module: nn.Module, model: Model, way: Way, arrangement: Arrangement) -> None:
    """Raise ReaderError unless `module`, called that way, gives the reference's numbers."""
    from fastlstm import reference

    name = type(module).__name__
    for seed, scale, sequences, steps in RUNS:
        series = [
            (scale * reference.check_input(model, steps, 10 * seed + k)).astype(np.float64)
            for k in range(sequences)
        ]
        expected = np.stack([reference.run(model, x) for x in series])
        if arrangement.last:
            expected = expected[:, -1]
        x = np.stack(series)
        batches = [x[k : k + 1] for k in range(sequences)] if way.alone else [x]
        shape = expected.shape[1:]
        found = np.concatenate([_outputs(module, way, arrangement, b, shape) for b in batches])
        room = max(1.0, float(np.abs(expected).max()))
        worst = float("inf")
        if found.shape == expected.shape:
            worst = float(np.abs(found - expected).max()) / room
        # Written so that NaN is refused.
        if not worst <= TOLERANCE:
            kinds = ", ".join(layer.kind for layer in model.layers)
            raise ReaderError(
                f"{name}: what it computes over {steps} steps of {sequences} sequences is no chain "
                f"of known layers: traced over other numbers of them it was {kinds}, and that "
                f"chain's greatest difference from it is {worst:.3g}"
            )

    _check_state(module, model, way, arrangement)


def _check_state(module: nn.Module, model: Model, way: Way, arrangement: Arrangement) -> None:
    """Raise ReaderError where a module keeps state between calls, and not as a stream does."""
    from fastlstm import reference

    before, x = (reference.check_input(model, 3, k).astype(np.float64)[None] for k in (30, 31))
    (fresh,), (_, later) = _runs(module, way, [x]), _runs(module, way, [before, x])
    if np.array_equal(fresh.numpy(), later.numpy(), equal_nan=True):
        return
    # Its state goes on from call to call: two halves must be as one whole.
    expected = reference.run(model, x[0])
    reason = "its outputs differ from those of one whole sequence"
    try:
        halves = [
            _arranged(y.numpy(), arrangement, part, expected[: part.shape[1]].shape)
            for y, part in zip(
                _runs(module, way, [x[:, :1], x[:, 1:]]), (x[:, :1], x[:, 1:]), strict=True
            )
        ]
    except ReaderError as error:
        halves, reason = [], str(error)
    if arrangement.last:
        expected = expected[[0, -1]]
    if halves:
        found = np.concatenate([half.reshape(-1, model.output_size) for half in halves])
        worst = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
        if worst <= TOLERANCE:
            return
    raise ReaderError(
        f"{type(module).__name__}: expected a state that goes on from call to call as that of a "
        f"stream, or none, found one that it keeps otherwise: where a sequence is given in two "
        f"parts, {reason}"
    )


def _outputs(
    module: nn.Module,
    way: Way,
    arrangement: Arrangement,
    x: NDArray[np.float64],
    shape: tuple[int, ...],
) -> NDArray[np.float64]:
    """What the module puts out, as (batch, time, outputs), or (batch, outputs) of the last step."""
    (y,) = _runs(module, way, [x])
    return _arranged(y.numpy(), arrangement, x, shape)


def _runs(module: nn.Module, way: Way, inputs: list[NDArray[np.float64]]) -> list[Tensor]:
    """The outputs of one fresh copy of the module for one input after the other."""
    import torch

    double, found = torch_copies.double(module), []
    for x in inputs:
        given = torch.from_numpy(x.copy())  # a forward may write into its input
        try:
            with torch_copies.widened(module), torch_copies.rounding(given) as tensor:
                y, *_ = way.run(double, tensor)
        except ReaderError:
            raise
        except Exception as error:  # somebody's forward may raise anything
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise ReaderError(
                f"{type(module).__name__}: expected a forward for sequences of any length and "
                f"number, found one that cannot be run on {x.shape[0]} of {x.shape[1]} steps: "
                f"{reason}"
            ) from None
        found.append(y.detach().double().clone())
    return found


def _arranged(
    values: NDArray[np.float64],
    arrangement: Arrangement,
    x: NDArray[np.float64],
    shape: tuple[int, ...],
) -> NDArray[np.float64]:
    arranged = arrangement.applied(values, *x.shape[:2])
    if arranged is None and len(x) == 1 and values.size == np.prod(shape):
        arranged = values.reshape(1, *shape)  # the batch was squeezed away
    if arranged is None:
        raise ReaderError(
            f"expected outputs for each of {x.shape[1]} steps of {x.shape[0]} sequences, found "
            f"shape {values.shape}"
        )
    return np.asarray(arranged, np.float64)
