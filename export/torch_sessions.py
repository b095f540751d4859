"""PyTorch's own roads as Sessions: eager, Cells, TorchScript, torch.compile and AOTInductor.

Each in its fastest honest form, on the CPU. None sets the number of threads: for one stream the
caller says torch.set_num_threads(1), which is best for all of them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ExportError, MissingExtraError

from . import inductor_package, torchscript_module
from .replay import need_no_future

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]

# TorchScript and torch.compile specialise and compile within the first calls.
WARM_UP = 4


class _Torch:
    """One stream whose state is a tuple of (1, H) tensors; subclasses say what a step is."""

    def __init__(self, model: Model) -> None:
        """Buffers for one sample, whose memory NumPy and torch share."""
        try:
            import torch
        except ImportError:
            raise MissingExtraError("torch", "train", "running torch") from None
        self.torch, self.model, self.bidirectional = torch, model, model.bidirectional
        self.inference = torch.inference_mode
        self.x = torch.zeros(1, model.input_size)
        self.sample = self.x.numpy()[0]
        self.reset()

    def reset(self) -> None:
        """Go back to the model's initial state."""
        self.carried = [
            self.torch.from_numpy(state.initial[None].copy()) for state in self.model.states
        ]

    def state(self) -> tuple[Floats, ...]:
        """Copies of the state vectors, each (H,), in the order of Model.states."""
        return tuple(vector.numpy().reshape(-1).copy() for vector in self.carried)


class _Whole(_Torch):
    """What takes whole sequences: `call(x (1, time, I), states) -> (y, states)`."""

    call: Callable[[Any, Any], Any]

    def __init__(self, model: Model) -> None:
        """As _Torch, with the sample as a sequence of one step."""
        super().__init__(model)
        self.x = self.x[None]
        self.one_dnn = self.torch._C._set_mkldnn_enabled

    def step(self, x: Floats) -> Floats:
        """One step: x (I,) -> a fresh (O,)."""
        if self.bidirectional:
            need_no_future(self.model, "torch by step")
        self.sample[:] = x
        # oneDNN's LSTM prepares itself anew at every call: 48 us a step, 24 without it, but over a
        # sequence it is twenty times as fast. The public switch would cost 5 us.
        before = self.torch.backends.mkldnn.enabled
        self.one_dnn(False)
        try:
            with self.inference():
                y, self.carried = self.call(self.x, self.carried)
        finally:
            self.one_dnn(before)
        return y.numpy()[0, 0]  # type: ignore[no-any-return]

    def run(self, x: Floats) -> Floats:
        """A block of steps: x (time, I) -> (time, O)."""
        if not len(x):
            return np.empty((0, self.model.output_size), np.float32)
        with self.inference():
            y, self.carried = self.call(self.torch.tensor(x)[None], self.carried)
        return y.numpy()[0]  # type: ignore[no-any-return]


class TorchSession(_Whole):
    """Eager nn.LSTM and kin, as fastlstm.train's Network, in inference mode."""

    def __init__(self, model: Model) -> None:
        """The twin of `model`, without gradients."""
        super().__init__(model)
        from fastlstm.train.network import Network

        self.call = Network.from_model(model).requires_grad_(False)


class TorchScriptSession(_Whole):
    """The traced Network, frozen and warmed up."""

    def __init__(self, model: Model, scripted: Any = None) -> None:
        """`scripted` is what to_torchscript made or torch.jit.load read; None makes it."""
        super().__init__(model)
        if scripted is None:
            scripted = torchscript_module.to_torchscript(model)
        with torchscript_module.no_legacy_warnings():
            module = self.torch.jit.freeze(scripted.eval())
        self.call = lambda x, state: module(x, tuple(state))
        for _ in range(WARM_UP):
            if self.bidirectional:
                self.run(np.zeros((2, model.input_size), np.float32))
            else:
                self.step(np.zeros(model.input_size, np.float32))
        self.reset()


class _Stepped(_Torch):
    """What takes one step at a time: `call(x (1, I), states) -> [y, *states]`; run is a loop."""

    call: Callable[[Any, Any], Any]

    def step(self, x: Floats) -> Floats:
        """One step: x (I,) -> a fresh (O,)."""
        self.sample[:] = x
        with self.inference():
            y, *self.carried = self.call(self.x, self.carried)
        return y.numpy()[0]  # type: ignore[no-any-return]

    def run(self, x: Floats) -> Floats:
        """A block of steps: x (time, I) -> (time, O)."""
        if not len(x):
            return np.empty((0, self.model.output_size), np.float32)
        outputs, carried, call = [], self.carried, self.call
        with self.inference():
            for row in self.torch.tensor(x).split(1):
                y, *carried = call(row, carried)
                outputs.append(y)
            self.carried = carried
            return self.torch.cat(outputs).numpy()  # type: ignore[no-any-return]


class TorchCellSession(_Stepped):
    """Eager Cells: torch.lstm_cell and kin, which nn.LSTMCell and kin call, one per layer.

    Projections, peepholes and the reset before the product, which torch's Cells lack, are written
    in torch's operations.
    """

    def __init__(self, model: Model) -> None:
        """Tensors of all layers and a function for each."""
        need_no_future(model, "torch's Cells")
        super().__init__(model)
        self.steps = [_cell(self.torch, layer) for layer in model.layers]
        self.call = self._call

    def _call(self, x: Any, state: Any) -> Any:
        old, new, inputs = iter(state), [], []
        for count, step in self.steps:
            inputs.append(x)
            if count == 0:
                x = step(x)
            elif count == RESIDUAL:
                x = step(x, inputs)
            elif count == DIFFERENCE:
                # A copy: the next step comes in the same memory.
                x, value = step(x, next(old)), x.clone()
                new.append(value)
            elif count == 1:
                x = step(x, next(old))
                new.append(x)
            else:
                x, c = step(x, (next(old), next(old)))
                new += (x, c)
        return x, *new


# In the place of a number of state vectors: layers that keep, or add, what came in before.
DIFFERENCE, RESIDUAL = -1, -2


def _cell(torch: Any, layer: Any) -> tuple[int, Callable[..., Any]]:
    """How many state vectors a layer has, or which other kind it is, and its step."""
    if layer.kind == "Difference":
        return DIFFERENCE, torch.sub
    if layer.kind == "Residual":
        return RESIDUAL, _residual(torch, layer)
    arrays = {name: torch.from_numpy(array.copy()) for name, array in layer.arrays.items()}
    if layer.kind == "Affine":
        return 0, lambda x: torch.addcmul(arrays["shift"], x, arrays["scale"])
    if layer.kind == "LayerNorm":
        norm, weight, bias = torch.nn.functional.layer_norm, arrays["weight"], arrays.get("bias")
        shape, eps = weight.shape, layer.eps
        return 0, lambda x: norm(x, shape, weight, bias, eps)
    if layer.kind == "Dense":
        linear, weight, bias = torch.nn.functional.linear, arrays["weight"], arrays.get("bias")
        kind = layer.activation
        if kind == "linear":
            return 0, lambda x: linear(x, weight, bias)
        if kind == "softmax":
            return 0, lambda x: torch.softmax(linear(x, weight, bias), -1)
        activate = getattr(torch, kind)
        return 0, lambda x: activate(linear(x, weight, bias))
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    w_ih, w_hh, b_ih, b_hh = (arrays.get(name) for name in names)
    if "weight_hr_l0" in arrays or "peephole_l0" in arrays:
        return 2, _lstm_in_operations(torch, arrays)
    if layer.options.get("reset") == "before":
        return 1, _gru_in_operations(torch, arrays)
    cell = {"LSTM": torch.lstm_cell, "GRU": torch.gru_cell}.get(layer.kind)
    if cell is None:
        cell = torch.rnn_relu_cell if layer.nonlinearity == "relu" else torch.rnn_tanh_cell
    return len(layer.state_names), lambda x, state: cell(x, state, w_ih, w_hh, b_ih, b_hh)


def _residual(torch: Any, layer: Any) -> Callable[..., Any]:
    """Adds to x (1, size) the columns of what went into the layer `back` places before."""
    back, wanted = layer.back + 1, torch.tensor(layer.columns)
    usual = torch.equal(wanted, torch.arange(len(wanted)))

    def step(x: Any, inputs: list[Any]) -> Any:
        source = inputs[-back]
        return x + (source if usual and source.size(1) == len(wanted) else source[:, wanted])

    return step


def _lstm_in_operations(torch: Any, arrays: dict[str, Any]) -> Callable[..., Any]:
    """A step of an LSTM with peepholes, a projection or both: x, (h, c) -> the new h and c."""
    linear, sigmoid, tanh = torch.nn.functional.linear, torch.sigmoid, torch.tanh
    w_ih, w_hh, w_hr = (arrays.get(f"weight_{name}_l0") for name in ("ih", "hh", "hr"))
    b_ih, b_hh = (arrays.get(f"bias_{name}_l0") for name in ("ih", "hh"))
    peephole = arrays.get("peephole_l0")
    if peephole is not None:
        p_i, p_f, p_o = peephole.chunk(3)

    def step(x: Any, state: Any) -> Any:
        h, c = state
        i, f, g, o = (linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)).chunk(4, 1)
        if peephole is not None:
            i, f = i + p_i * c, f + p_f * c
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        if peephole is not None:
            o = o + p_o * c
        h = sigmoid(o) * tanh(c)
        return h if w_hr is None else linear(h, w_hr), c

    return step


def _gru_in_operations(torch: Any, arrays: dict[str, Any]) -> Callable[..., Any]:
    """A step of a GRU whose reset gate acts before the product: x, h -> the new h."""
    linear = torch.nn.functional.linear
    w_ih, b_ih = arrays["weight_ih_l0"], arrays.get("bias_ih_l0")
    w_hh, b_hh = arrays["weight_hh_l0"], arrays.get("bias_hh_l0")
    both = 2 * w_hh.shape[1]
    w_rz, w_n = w_hh[:both], w_hh[both:]
    b_rz, b_n = (None, None) if b_hh is None else (b_hh[:both], b_hh[both:])

    def step(x: Any, h: Any) -> Any:
        z_x = linear(x, w_ih, b_ih)
        r, z = torch.sigmoid(z_x[:, :both] + linear(h, w_rz, b_rz)).chunk(2, 1)
        n = torch.tanh(z_x[:, both:] + linear(r * h, w_n, b_n))
        return (1 - z) * n + z * h

    return step


class InductorSession(_Stepped):
    """torch.compile of one step written in arithmetic that Inductor fuses; compiles when made."""

    def __init__(self, model: Model) -> None:
        """Takes about ten seconds the first time, less from Inductor's cache on disk."""
        super().__init__(model)
        step = inductor_package.compile_step(model)
        self.call = lambda x, state: step(x, *state)
        with torchscript_module.no_legacy_warnings():
            for _ in range(WARM_UP):
                self.step(np.zeros(model.input_size, np.float32))
        self.reset()


class AotiSession(_Torch):
    """An AOTInductor package, called through its loader: flat lists in and out.

    The package's own __call__ sorts arguments into trees and back, 8 us of 11 a step at H = 64.
    """

    def __init__(self, model: Model, package: str | Path | None = None) -> None:
        """`package` is a .pt2 file; None compiles one in a temporary folder (about ten seconds)."""
        super().__init__(model)
        with tempfile.TemporaryDirectory(prefix="fastlstm-") as folder:
            if package is None:
                package = inductor_package.compile_package(model, Path(folder) / "model.pt2")
            try:
                self.package = self.torch._inductor.aoti_load_package(str(package))
            except RuntimeError as error:
                raise ExportError(
                    f"{package}: torch cannot load it: {str(error).splitlines()[0]}"
                ) from None
        self.call = self.package.loader.boxed_run

    def step(self, x: Floats) -> Floats:
        """One step: x (I,) -> a fresh (O,)."""
        self.sample[:] = x
        y, *self.carried = self.call([self.x, *self.carried])
        return y.numpy()[0]  # type: ignore[no-any-return]

    def run(self, x: Floats) -> Floats:
        """A block of steps: x (time, I) -> (time, O)."""
        if not len(x):
            return np.empty((0, self.model.output_size), np.float32)
        outputs, carried, call = [], self.carried, self.call
        for row in self.torch.tensor(x).split(1):
            y, *carried = call([row, *carried])
            outputs.append(y)
        self.carried = carried
        return self.torch.cat(outputs).numpy()  # type: ignore[no-any-return]
