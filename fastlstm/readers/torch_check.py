"""Whether a Model computes what a torch module computes: both run in float64 and are compared.

Nothing is accepted because it looks like a chain; only because its numbers are those of one.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.readers import torch_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from fastlstm.model import Model

# The reference and torch float64 agree to 1e-12; anything structural is far beyond this.
TOLERANCE = 1e-9
CHECK_STEPS = 7


def check(module: nn.Module, model: Model, axes: int) -> None:
    """Raise ReaderError unless `module` gives the reference's numbers, on input of `axes` axes."""
    from fastlstm import reference

    worst = None
    for seed, scale in ((1, 1.0), (2, 30.0)):
        x = (scale * reference.check_input(model, CHECK_STEPS, seed)).astype(np.float64)
        expected = reference.run(model, x)
        room = max(1.0, float(np.abs(expected).max()))
        found = [
            error
            for run in CALLS[axes]
            if (error := _distance(run, module, x, expected)) is not None
        ]
        if not found:
            raise ReaderError(
                f"{type(module).__name__}: expected (time, {model.output_size}) outputs, or those "
                f"of the last step, for {CHECK_STEPS} steps of {model.input_size} values; no way "
                "of calling it gave that"
            )
        worst = max(worst or 0.0, min(found) / room)
    # Written so that NaN is refused.
    if worst is None or not worst <= TOLERANCE:
        kinds = ", ".join(layer.kind for layer in model.layers)
        raise ReaderError(
            f"{type(module).__name__} computes something that is no chain of known layers: its "
            f"submodules ran in the order {kinds}, and that chain's greatest difference from it is "
            f"{worst:.3g}"
        )


def _distance(
    run: Callable[[nn.Module, Tensor], Tensor | None],
    module: nn.Module,
    x: NDArray[np.float64],
    expected: NDArray[Any],
) -> float | None:
    """How far one way of calling the module is from the reference; None if that fails."""
    import torch

    try:
        # A fresh copy each time: a module may keep state between calls.
        y = run(double(module), torch.from_numpy(x))
    except ReaderError:
        raise
    except Exception:  # the wrong way of calling somebody's forward may raise anything
        return None
    if y is None:
        return None
    values = y.numpy().ravel()
    for wanted in (expected, expected[-1]):
        if values.size == wanted.size:
            error = float(np.abs(values - wanted.ravel()).max())
            return error if error == error else float("inf")
    return None


def _step_by_step(module: nn.Module, x: Tensor) -> Tensor | None:
    """Module(x, state) -> (y, state), one step at a time; a Cell's output is its state."""
    import torch

    outputs, state = [], None
    for row in x:
        out = module(row[None], state)
        if isinstance(out, torch.Tensor):
            y = state = out
        elif isinstance(module, torch.nn.LSTMCell):
            y, state = out[0], out
        else:
            y, state = out
        outputs.append(y.reshape(-1))
    return torch.stack(outputs)


# Every way of calling a module that is known to people, by the number of axes of its input.
CALLS: dict[int, tuple[Callable[[Any, Any], Any], ...]] = {
    # Batch first, time first, and one step at a time with the state handed back.
    3: (
        lambda module, x: first_tensor(module(x[None])),
        lambda module, x: first_tensor(module(x[:, None])),
        lambda module, x: _step_by_step(module, x[:, None]),
    ),
    # A batch of samples, a batch of scalar series, and one step at a time.
    2: (
        lambda module, x: first_tensor(module(x)),
        lambda module, x: first_tensor(module(x.reshape(1, -1))),
        _step_by_step,
    ),
}


@contextmanager
def in_float64() -> Iterator[None]:
    """Modules that make their own zero state make it in the default dtype."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)


def still(module: nn.Module) -> nn.Module:
    """A copy on the CPU in eval mode, whose weights are plain tensors, parametrized ones too."""
    import torch
    from torch.nn.utils import parametrize

    try:
        twin = copy.deepcopy(module).cpu().eval()
    except Exception as error:
        raise ReaderError(
            f"{type(module).__name__}: expected a module that can be copied with copy.deepcopy, "
            f"found {type(error).__name__}: {error}"
        ) from None
    for part in list(twin.modules()):
        if parametrize.is_parametrized(part):
            names: Any = part.parametrizations
            values = {name: getattr(part, name).detach() for name in names}
            # torch's own removal would take the property from the original too, whose class it is.
            part.__class__ = type(part).__bases__[0]
            del part._modules["parametrizations"]
            for name, value in values.items():
                setattr(part, name, torch.nn.Parameter(value))
    return twin


def double(module: nn.Module) -> nn.Module:
    """A copy in float64, its BatchNorms already rounded as the Model holds them."""
    import torch

    twin = copy.deepcopy(module).double()
    originals = dict(module.named_modules())
    for name, part in twin.named_modules():
        original = originals[name]
        if not isinstance(part, torch.nn.BatchNorm1d) or part.running_var is None:
            continue
        assert isinstance(original, torch.nn.BatchNorm1d)
        scale, shift = torch_layers.folded(full_name(module, name), original)
        assert part.running_mean is not None
        part.running_mean.zero_()
        part.running_var.fill_(1 - part.eps)
        part.weight = torch.nn.Parameter(torch.from_numpy(scale).double())
        part.bias = torch.nn.Parameter(torch.from_numpy(shift).double())
    return twin


def full_name(root: nn.Module, name: str) -> str:
    """A submodule's dotted name and class; the root has only its class."""
    kind = type(root.get_submodule(name)).__name__
    return f"{name} ({kind})" if name else kind


def first_tensor(out: Any) -> Tensor | None:
    """The output among what forward returned: y itself, or the first of (y, state)."""
    import torch

    while isinstance(out, tuple | list) and out:
        out = out[0]
    return out.detach() if isinstance(out, torch.Tensor) else None
