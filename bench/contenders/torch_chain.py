"""Eager torch: torch.lstm and kin as nn.LSTM calls them, the state kept in the layout they take.

Layers that one nn.LSTM would hold as num_layers are one call. Threads are the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fastlstm.errors import MissingExtraError
from fastlstm.export.replay import need_no_future
from fastlstm.export.runtimes import version_of

from .contender import Contender
from .installed import needs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]
    # (x (streams, time, I), its state, what went into each layer so far) -> y and its state.
    Call = Callable[[Any, Any, list[Any]], tuple[Any, Any]]

NAME = "torch eager"


@dataclass(frozen=True)
class Stage:
    """One call of the chain, and its state before the first step, for so many streams."""

    call: Call
    initial: Callable[[int], Any]


class Chain:
    """The stages one after the other; `chain(x, states)` -> y and the new states."""

    def __init__(self, stages: list[Stage]) -> None:
        """In the order of the model's layers."""
        self.stages = stages
        self.calls = [stage.call for stage in stages]

    def initial(self, streams: int) -> list[Any]:
        """The states before the first step."""
        return [stage.initial(streams) for stage in self.stages]

    def __call__(self, x: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        """Over x (streams, time, I)."""
        inputs: list[Any] = []
        after: list[Any] = []
        for call, state in zip(self.calls, states, strict=True):
            inputs.append(x)
            x, new = call(x, state, inputs)
            after.append(new)
        return x, after


def float_chain(model: Model) -> Chain:
    """The twin of `model` in torch's float layers, without gradients."""
    return Chain([stage_of(group) for group in groups(model)])


def groups(model: Model) -> Iterator[list[Any]]:
    """The twin's modules, those together that one module of torch would hold."""
    try:
        from fastlstm.train.network import Network
    except ImportError:
        raise MissingExtraError("torch", "train", "running torch") from None
    modules = list(Network.from_model(model).requires_grad_(False).layers)
    # A residual connection counts single layers.
    together = all(layer.kind != "Residual" for layer in model.layers)
    group = modules[:1]
    for before, module in pairwise(modules):
        if not (together and _stackable(before, module)):
            yield group
            group = []
        group.append(module)
    yield group


def stage_of(group: list[Any]) -> Stage:
    """A group as a stage in float32."""
    from fastlstm.train import cells, plain_layers

    module = group[0]
    if isinstance(module, cells.LSTM | cells.GRU | cells.RNN):
        return _stack(group)
    forward = module.forward
    if isinstance(module, cells.Recurrent):
        return Stage(lambda x, state, inputs: forward(x, state), initial_of(group))
    if isinstance(module, plain_layers.Difference):
        return Stage(
            lambda x, state, inputs: forward(x, state),
            lambda streams: module.initial(streams, _like()),
        )
    if isinstance(module, plain_layers.Residual):
        back = module.back + 1
        return Stage(lambda x, state, inputs: (forward(x, inputs[-back]), state), no_state)
    return Stage(lambda x, state, inputs: (forward(x), state), no_state)


def _stack(group: list[Any]) -> Stage:
    """Recurrent layers in one call of torch.lstm, torch.gru or torch.rnn_*."""
    import torch

    first = group[0]
    weights = [weight for module in group for weight in module.weights()]
    settings = (first.bias, len(group), 0.0, False, first.bidirectional, True)
    if first.kind == "LSTM":
        lstm: Any = torch.lstm

        def call_lstm(x: Any, state: Any, inputs: list[Any]) -> tuple[Any, Any]:
            y, h, c = lstm(x, state, weights, *settings)
            return y, (h, c)

        return Stage(call_lstm, stacked_initial(group))
    run: Any = torch.gru
    if first.kind == "RNN":
        run = torch.rnn_relu if first.nonlinearity == "relu" else torch.rnn_tanh

    def call(x: Any, state: Any, inputs: list[Any]) -> tuple[Any, Any]:
        return run(x, state, weights, *settings)  # type: ignore[no-any-return]

    return Stage(call, stacked_initial(group))


def stacked_initial(group: list[Any]) -> Callable[[int], Any]:
    """As torch's layers take it: (layers * directions, streams, H), of an LSTM h and c."""
    import torch

    kinds = len(group[0].vectors)

    def initial(streams: int) -> Any:
        vectors = [module.initial(_like(), streams) for module in group]
        states = [torch.stack([v for row in vectors for v in row[k::kinds]]) for k in range(kinds)]
        return tuple(states) if kinds > 1 else states[0]

    return initial


def initial_of(group: list[Any]) -> Callable[[int], Any]:
    """The state of a layer that takes it as flat (streams, H) tensors."""
    return lambda streams: group[0].initial(_like(), streams)


def _like() -> Any:
    import torch

    return torch.zeros(())


def no_state(streams: int) -> Any:
    """Of a layer that carries nothing."""
    return ()


def _stackable(before: Any, module: Any) -> bool:
    """Whether one nn.LSTM, nn.GRU or nn.RNN could hold both as layers of its own."""
    from fastlstm.train import cells

    if type(before) is not type(module) or not isinstance(
        module, cells.LSTM | cells.GRU | cells.RNN
    ):
        return False
    alike = ("hidden_size", "proj_size", "bias", "bidirectional", "nonlinearity")
    return all(getattr(before, name, None) == getattr(module, name, None) for name in alike)


class ChainStreams:
    """So many streams as one batch: one call of the chain a step."""

    def __init__(self, model: Model, chain: Chain, streams: int) -> None:
        """A buffer for their samples, whose memory NumPy and torch share."""
        import torch

        self.chain, self.count = chain, streams
        self.x = torch.zeros(streams, 1, model.input_size)
        self.samples = self.x.numpy()[:, 0]
        # Made once: entering it costs 1 us of 27 a step, making it another 2.
        self.inference = torch.inference_mode()
        self.one_dnn = torch._C._set_mkldnn_enabled
        self.one_dnn_is_on = torch._C._get_mkldnn_enabled
        self.reset()

    def reset(self) -> None:
        """See Streams."""
        self.carried = self.chain.initial(self.count)

    def step(self, x: Floats) -> Floats:
        """See Streams."""
        self.samples[:] = x
        # oneDNN's LSTM prepares itself anew at every call, 40 us for any number of streams; over a
        # sequence it is ten times as fast. The public switch would cost 5 us.
        before = self.one_dnn_is_on()
        self.one_dnn(False)
        try:
            with self.inference:
                y, self.carried = self.chain(self.x, self.carried)
        finally:
            self.one_dnn(before)
        return y.numpy()[:, 0]  # type: ignore[no-any-return]


class ChainSession:
    """One stream, stepped as a batch of one."""

    def __init__(self, name: str, model: Model, chain: Chain) -> None:
        """A session over a chain of `model`; `name` is the contender's, for its errors."""
        import torch

        self.name, self.model, self.chain = name, model, chain
        self.tensor = torch.tensor
        self.one = ChainStreams(model, chain, 1)

    def reset(self) -> None:
        """See Session."""
        self.one.reset()

    def timed_step(self, x: Floats) -> Floats:
        """One sample: x (I,) -> a fresh (O,)."""
        return self.one.step(x)[0]  # type: ignore[no-any-return]

    def step(self, x: Floats) -> Floats:
        """As `timed_step`; raises UnsupportedError for a bidirectional model."""
        need_no_future(self.model, self.name)
        return self.timed_step(x)

    def run(self, x: Floats) -> Floats:
        """A block of samples: x (time, I) -> (time, O)."""
        one = self.one
        with one.inference:
            y, one.carried = self.chain(self.tensor(x)[None], one.carried)
        return y.numpy()[0]  # type: ignore[no-any-return]

    def batch(self, streams: int) -> ChainStreams:
        """See Session."""
        need_no_future(self.model, self.name)
        return ChainStreams(self.model, self.chain, streams)

    def close(self) -> None:
        """Nothing to let go of."""


def _open(model: Model) -> ChainSession:
    return ChainSession(NAME, model, float_chain(model))


EAGER = Contender(
    NAME,
    "one thread, inference mode, nn.LSTM's own calls; oneDNN for sequences, off for steps",
    _open,
    needs_of("torch eager, by step"),
    version_of("torch"),
)
CONTENDERS = (EAGER,)
