"""What a graph with the input `lengths` has besides: each row of a padded batch ends by itself.

Right also where a runtime passes over sequence_lens, as OpenVINO, OpenCV and onnx's evaluator do.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .onnx_nodes import LENGTHS, Nodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# What shuts the input gate of an LSTM and opens its forget gate, gate by gate (i f g o): far beyond
# any sum, so that sigmoids are 0 and 1 exactly. It is beyond float16 too.
HOLD = np.array([-1e9, 1e9, 0, 0], np.float32)


class LengthNodes(Nodes):
    """Masks, places and ends of the sequences of a padded batch, each laid down once, when asked.

    Values are by time, (time, batch, size). What stands after the end of a sequence is 0 in x, so
    that no NaN of the padding goes on, and finite everywhere else.
    """

    @cached_property
    def counts(self) -> str:
        """`lengths` as int64, which indices are: (batch,)."""
        from onnx import TensorProto

        return self.node("Cast", [LENGTHS], "counts", to=TensorProto.INT64)

    @cached_property
    def step(self) -> str:
        """The number of each step, (time, 1)."""
        shape = self.node("Shape", [self.by_time], "x_shape")
        steps = self.node("Gather", [shape, self.scalar("zero", 0)], "steps", axis=0)
        return self._counted(steps, "step", 1)

    @cached_property
    def row(self) -> str:
        """The number of each sequence, (batch,)."""
        batch = self.node("Shape", [self.counts], "batch_shape")
        batch = self.node("Squeeze", [batch, self.integers("axis0", 0)], "batch_size")
        return self._counted(batch, "row")

    def _counted(self, count: str, output: str, *axes: int) -> str:
        """0, 1, .. before `count`, with further axes."""
        bounds = [self.scalar("zero", 0), count, self.scalar("one", 1)]
        if not axes:
            return self.node("Range", bounds, output)
        found = self.node("Range", bounds, f"{output}_flat")
        return self.node("Unsqueeze", [found, self.integers(f"axis{axes[0]}", *axes)], output)

    def scalar(self, name: str, value: int) -> str:
        """One int64."""
        return self.constant(name, np.int64(value))

    @cached_property
    def is_within(self) -> str:
        """Whether a step is one of the sequence's own, (time, batch)."""
        return self.node("Less", [self.step, self.counts], "is_within")

    @cached_property
    def within(self) -> str:
        """The same for vectors, (time, batch, 1)."""
        return self.node("Unsqueeze", [self.is_within, self.integers("axis2", 2)], "within")

    @cached_property
    def over(self) -> str:
        """1 after the end of a sequence and 0 before it, (time, batch, 1) float32."""
        from onnx import TensorProto

        is_over = self.node("Not", [self.within], "is_over")
        return self.node("Cast", [is_over], "over", to=TensorProto.FLOAT)

    def silenced(self, y: str, output: str) -> str:
        """The values with 0 after the end of each sequence."""
        nothing = self.constant("nothing", np.float32(0))
        return self.node("Where", [self.within, y, nothing], output)

    @cached_property
    def mirror(self) -> str:
        """Where each step stands once each sequence runs backward, (time, batch, 2)."""
        last = self.node("Sub", [self.counts, self.scalar("one", 1)], "last_step")
        back = self.node("Sub", [last, self.step], "steps_back")
        at = self.node("Where", [self.is_within, back, self.step], "mirror_step")
        shape = self.node("Shape", [at], "mirror_shape")
        row = self.node("Expand", [self.row, shape], "mirror_row")
        return self._pairs(at, row, 2, "mirror")

    def _pairs(self, at: str, row: str, axis: int, output: str) -> str:
        axes = self.integers(f"axis{axis}", axis)
        parts = [self.node("Unsqueeze", [name, axes], f"{name}_of_{output}") for name in (at, row)]
        return self.node("Concat", parts, output, axis=axis)

    def mirrored(self, x: str, output: str) -> str:
        """Every sequence backward from its own last step; what comes after it stays behind it.

        Not ReverseSequence, which OpenCV lacks.
        """
        return self.node("GatherND", [x, self.mirror], output)

    @cached_property
    def end(self) -> str:
        """Where the state after the last step stands behind the one given, (batch, 2)."""
        return self._pairs(self.counts, self.row, 1, "end")

    def ended(self, states: str, after: str) -> None:
        """The graph's output `after`: of `states` (1 + time, batch, size) the one after the end.

        The given state is the first of them, so that what comes after n steps stands at place n.
        """
        if not self.bare:
            self.node("GatherND", [states, self.end], after)
            return
        narrow = self.node("GatherND", [states, self.end], f"{after}_narrow")
        self.node("Unsqueeze", [narrow, self.integers("axis0", 0)], after)

    @cached_property
    def has_steps(self) -> str:
        """Whether a sequence has a step at all, (batch, 1)."""
        some = self.node("Greater", [self.counts, self.scalar("zero", 0)], "is_longer")
        return self.node("Unsqueeze", [some, self.integers("axis1", 1)], "has_steps")

    def kept(self, found: str, given: str, output: str) -> str:
        """The state found, or the one given in rows whose sequence has no step.

        ONNX does not say what a recurrent node's final state is there; ONNX Runtime makes it 0.
        """
        return self.node("Where", [self.has_steps, found, given], output)

    def holding(self, name: str, w: str, column: Floats) -> str:
        """W (1, rows, inputs) with one further column (1, rows, 1), for the input `over`."""
        return self.node(
            "Concat", [w, self.constant(f"{name}_hold", column)], f"{name}_held", axis=2
        )
