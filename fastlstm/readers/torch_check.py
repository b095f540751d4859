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
    from torch import nn

    from fastlstm.model import Model
    from fastlstm.readers.torch_outputs import Arrangement
    from fastlstm.readers.torch_ways import Way

# The reference and torch float64 agree to 1e-12; anything structural is far beyond this.
TOLERANCE = 1e-9
SEQUENCES = 3
# Seed, scale of the input, and steps: lengths beside that of the trace, large inputs too.
RUNS = ((1, 1.0, 7), (2, 30.0, 5))


def check(module: nn.Module, model: Model, way: Way, arrangement: Arrangement) -> None:
    """Raise ReaderError unless `module`, called that way, gives the reference's numbers."""
    from fastlstm import reference

    name = type(module).__name__
    for seed, scale, steps in RUNS:
        series = [
            (scale * reference.check_input(model, steps, 10 * seed + k)).astype(np.float64)
            for k in range(SEQUENCES)
        ]
        expected = np.stack([reference.run(model, x) for x in series])
        if arrangement.last:
            expected = expected[:, -1]
        x = np.stack(series)
        batches = [x[k : k + 1] for k in range(SEQUENCES)] if way.alone else [x]
        found = np.concatenate([_outputs(module, way, arrangement, batch) for batch in batches])
        room = max(1.0, float(np.abs(expected).max()))
        worst = float("inf")
        if found.shape == expected.shape:
            worst = float(np.abs(found - expected).max()) / room
        # Written so that NaN is refused.
        if not worst <= TOLERANCE:
            kinds = ", ".join(layer.kind for layer in model.layers)
            raise ReaderError(
                f"{name}: what it computes over {steps} steps is no chain of known layers: traced "
                f"over other steps it was {kinds}, and that chain's greatest difference from it "
                f"is {worst:.3g}"
            )


def _outputs(
    module: nn.Module, way: Way, arrangement: Arrangement, x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What the module puts out, as (batch, time, outputs), or (batch, outputs) of the last step."""
    import torch

    # A fresh copy each time: a module may keep state between calls.
    double = torch_copies.folded_double(module)
    try:
        with torch_copies.widened(), torch_copies.rounding(torch.from_numpy(x)) as tensor:
            y = way.run(double, tensor)
    except ReaderError:
        raise
    except Exception as error:  # somebody's forward may raise anything
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise ReaderError(
            f"{type(module).__name__}: expected a forward for sequences of any length and number, "
            f"found one that cannot be run on {x.shape[0]} of {x.shape[1]} steps: {reason}"
        ) from None
    arranged = arrangement.applied(y.detach().double().numpy(), *x.shape[:2])
    if arranged is None:
        raise ReaderError(
            f"{type(module).__name__}: expected outputs for each of {x.shape[1]} steps of "
            f"{x.shape[0]} sequences, found shape {tuple(y.shape)}"
        )
    return np.asarray(arranged, np.float64)
