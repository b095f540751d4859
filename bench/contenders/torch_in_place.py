"""torch's operations by hand, each written into memory that is there already: no Cell is as fast.

One product a layer over the sample and the hidden state side by side, in-place activations, views
made once. What a patient user of eager torch can reach without a compiler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.export.replay import need_no_future
from fastlstm.export.runtimes import version_of
from fastlstm.model import GRU, LSTM, RNN, Affine, Dense, Difference, LayerNorm, Residual

from .contender import BATCH, STEP, Contender
from .installed import needs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]
    # Makes a layer's output from its input, both in memory of their own.
    Act = Callable[[], Any]

NAME = "torch in place"


class InPlaceStreams:
    """So many streams as one batch, all of whose values stay where they are."""

    def __init__(self, model: Model, streams: int) -> None:
        """Lay out the memory of each layer; raises UnsupportedError for a bidirectional model."""
        need_no_future(model, NAME)
        import torch

        self.torch, self.count = torch, streams
        self.initial: list[tuple[Any, Any]] = []  # a state's memory, and what it begins with
        self.acts: list[Act] = []
        x = torch.zeros(streams, model.input_size)
        # The first layer, where it is a recurrent one, has the sample beside its hidden state.
        self.x: Any = x
        inputs: list[Any] = []
        for k, layer in enumerate(model.layers):
            inputs.append(x)
            if isinstance(layer, Residual):
                x = self._residual(layer, x, inputs[k - layer.back])
            else:
                x = LAYERS[type(layer)](self, layer, x)
            if k == 0:
                inputs[0] = self.x
        self.samples, self.y = self.x.numpy(), x.numpy()
        # Made once, entered at each step.
        self.inference = torch.inference_mode()
        self.reset()

    def reset(self) -> None:
        """See Streams."""
        with self.torch.inference_mode():
            for memory, value in self.initial:
                memory.copy_(value)

    def step(self, x: Floats) -> Floats:
        """See Streams; the result is a buffer."""
        self.samples[:] = x
        with self.inference:
            for act in self.acts:
                act()
        return self.y

    def _empty(self, size: int) -> Any:
        return self.torch.zeros(self.count, size)

    def _state(self, memory: Any, value: Any) -> Any:
        self.initial.append((memory, self.torch.from_numpy(value.copy())))
        return memory

    def _product(self, weight: Any, bias: Any, x: Any, z: Any) -> Act:
        """Z = x @ weight.T + bias."""
        torch, w = self.torch, self.torch.tensor(weight.T.copy())
        if bias is None:
            mm = torch.mm
            return lambda: mm(x, w, out=z)
        b, addmm = torch.tensor(bias), torch.addmm
        return lambda: addmm(b, x, w, out=z)

    def _beside_h(self, x: Any, layer: Any) -> tuple[Any, Any]:
        """The sample and the hidden state in one piece of memory, and the hidden state in it."""
        inputs = x.shape[1]
        both = self._empty(inputs + layer.output_size)
        here, h = both[:, :inputs], both[:, inputs:]
        if self.acts or x is not self.x:
            self.acts.append(lambda: here.copy_(x))
        else:
            self.x = here
        return both, self._state(h, layer.states[0].initial)

    def _lstm(self, layer: Any, x: Any) -> Any:
        torch, size = self.torch, layer.hidden_size
        both, h = self._beside_h(x, layer)
        c = self._state(self._empty(size), layer.states[1].initial)
        z, t = self._empty(4 * size), self._empty(size)
        z_i, z_f, z_g, z_o = z.chunk(4, 1)
        z_if = z[:, : 2 * size]
        weight = np.concatenate([layer.weight_ih_l0, layer.weight_hh_l0], 1)
        bias = None if layer.bias_ih_l0 is None else layer.bias_ih_l0 + layer.bias_hh_l0
        product = self._product(weight, bias, both, z)
        tanh, mul = torch.tanh, torch.mul
        peephole = layer.peephole_l0
        p_i, p_f, p_o = torch.zeros(3) if peephole is None else torch.tensor(peephole).chunk(3)
        w_hr = layer.weight_hr_l0
        # What a projection takes in, or h itself where there is none.
        out = h if w_hr is None else self._empty(size)

        def act() -> None:
            product()
            if peephole is not None:
                z_i.addcmul_(p_i, c)
                z_f.addcmul_(p_f, c)
            z_if.sigmoid_()
            z_g.tanh_()
            c.mul_(z_f).addcmul_(z_i, z_g)
            if peephole is not None:
                z_o.addcmul_(p_o, c)
            z_o.sigmoid_()
            tanh(c, out=t)
            mul(t, z_o, out=out)

        self.acts.append(act)
        if w_hr is not None:
            self.acts.append(self._product(w_hr, None, out, h))
        return h

    def _gru(self, layer: Any, x: Any) -> Any:
        torch, size = self.torch, layer.hidden_size
        h = self._state(self._empty(size), layer.states[0].initial)
        z, z_h, t = self._empty(3 * size), self._empty(3 * size), self._empty(size)
        rz, n = z[:, : 2 * size], z[:, 2 * size :]
        r, s = rz.chunk(2, 1)
        rz_h, n_h = z_h[:, : 2 * size], z_h[:, 2 * size :]
        w_hh, b_hh = layer.weight_hh_l0, layer.bias_hh_l0
        of_x = self._product(layer.weight_ih_l0, layer.bias_ih_l0, x, z)
        lerp, mul = torch.lerp, torch.mul
        if layer.reset == "after":
            of_h = self._product(w_hh, b_hh, h, z_h)

            def act() -> None:
                of_x()
                of_h()
                rz.add_(rz_h).sigmoid_()
                n.addcmul_(r, n_h).tanh_()
                lerp(n, h, s, out=h)

        else:
            of_h = self._product(
                w_hh[: 2 * size], None if b_hh is None else b_hh[: 2 * size], h, rz_h
            )
            of_rh = self._product(
                w_hh[2 * size :], None if b_hh is None else b_hh[2 * size :], t, n_h
            )

            def act() -> None:
                of_x()
                of_h()
                rz.add_(rz_h).sigmoid_()
                mul(r, h, out=t)
                of_rh()
                n.add_(n_h).tanh_()
                lerp(n, h, s, out=h)

        self.acts.append(act)
        return h

    def _rnn(self, layer: Any, x: Any) -> Any:
        both, h = self._beside_h(x, layer)
        z = self._empty(layer.hidden_size)
        weight = np.concatenate([layer.weight_ih_l0, layer.weight_hh_l0], 1)
        bias = None if layer.bias_ih_l0 is None else layer.bias_ih_l0 + layer.bias_hh_l0
        self.acts.append(self._product(weight, bias, both, z))
        if layer.nonlinearity == "relu":
            clamp = self.torch.clamp_min
            self.acts.append(lambda: clamp(z, 0, out=h))
        else:
            tanh = self.torch.tanh
            self.acts.append(lambda: tanh(z, out=h))
        return h

    def _dense(self, layer: Any, x: Any) -> Any:
        y = self._empty(layer.output_size)
        self.acts.append(self._product(layer.weight, layer.bias, x, y))
        if layer.activation == "softmax":
            softmax = self.torch.softmax
            self.acts.append(lambda: y.copy_(softmax(y, -1)))
        elif layer.activation != "linear":
            self.acts.append(getattr(y, f"{layer.activation}_"))
        return y

    def _affine(self, layer: Any, x: Any) -> Any:
        y, addcmul = self._empty(layer.output_size), self.torch.addcmul
        scale, shift = (self.torch.tensor(array) for array in (layer.scale, layer.shift))
        self.acts.append(lambda: addcmul(shift, x, scale, out=y))
        return y

    def _layer_norm(self, layer: Any, x: Any) -> Any:
        torch, y = self.torch, self._empty(layer.output_size)
        weight = torch.tensor(layer.weight)
        bias = None if layer.bias is None else torch.tensor(layer.bias)
        norm, shape, eps = torch.layer_norm, weight.shape, layer.eps
        self.acts.append(lambda: y.copy_(norm(x, shape, weight, bias, eps)))
        return y

    def _difference(self, layer: Any, x: Any) -> Any:
        y, sub = self._empty(layer.output_size), self.torch.sub
        last = self._state(self._empty(layer.output_size), layer.states[0].initial)
        self.acts.append(lambda: sub(x, last, out=y))
        self.acts.append(lambda: last.copy_(x))
        return y

    def _residual(self, layer: Residual, x: Any, source: Any) -> Any:
        y, add, columns = self._empty(layer.output_size), self.torch.add, list(layer.columns)
        first = columns[0]
        if columns == list(range(first, first + len(columns))):
            view = source[:, first : first + len(columns)]
            self.acts.append(lambda: add(x, view, out=y))
        else:
            wanted = self.torch.tensor(columns)
            self.acts.append(lambda: add(x, source.index_select(1, wanted), out=y))
        return y


LAYERS: dict[type, Callable[[InPlaceStreams, Any, Any], Any]] = {
    LSTM: InPlaceStreams._lstm,
    GRU: InPlaceStreams._gru,
    RNN: InPlaceStreams._rnn,
    Dense: InPlaceStreams._dense,
    Affine: InPlaceStreams._affine,
    LayerNorm: InPlaceStreams._layer_norm,
    Difference: InPlaceStreams._difference,
}


class InPlaceSession:
    """One stream, stepped as a batch of one; a block is a loop of steps."""

    def __init__(self, model: Model) -> None:
        """Raises UnsupportedError for a bidirectional model."""
        self.model = model
        self.one = InPlaceStreams(model, 1)
        self.advance = self.one.step
        self.y: Floats = self.one.y[0]

    def reset(self) -> None:
        """See Session."""
        self.one.reset()

    def timed_step(self, x: Floats) -> Floats:
        """One sample: x (I,) -> (O,), a buffer."""
        self.advance(x)
        return self.y

    def step(self, x: Floats) -> Floats:
        """As `timed_step`, a fresh array."""
        return self.timed_step(x).copy()

    def run(self, x: Floats) -> Floats:
        """A block of samples: x (time, I) -> (time, O)."""
        y = np.empty((len(x), len(self.y)), np.float32)
        for t, sample in enumerate(x):
            y[t] = self.timed_step(sample)
        return y

    def batch(self, streams: int) -> InPlaceStreams:
        """See Session."""
        return InPlaceStreams(self.model, streams)

    def close(self) -> None:
        """Nothing to let go of."""


IN_PLACE = Contender(
    NAME,
    "one thread, inference mode, addmm and kin written by hand with out= and in place",
    InPlaceSession,
    needs_of("torch eager, by step"),
    version_of("torch"),
    frozenset((STEP, BATCH)),
)
CONTENDERS = (IN_PLACE,)
