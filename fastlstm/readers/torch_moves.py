"""The operators of torch that only move, drop, repeat or overwrite elements, or make constants.

They run as torch has them, on the numbers of elements in place of values, so that views and writes
into them are torch's own too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastlstm.errors import ReaderError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fastlstm.readers.elements import Elements
    from fastlstm.readers.torch_program import Program

    Handler = Callable[["Call", Any, dict[str, Any]], Any]


@dataclass(frozen=True, eq=False)
class Values:
    """A floating tensor of the graph: for each element its number in the trace.

    Below 0 it is a constant: -1 - its index in Program.constants. An int64 tensor.
    """

    codes: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    @property
    def constant(self) -> bool:
        """Whether nothing of the network's input is in it."""
        return bool((self.codes < 0).all())


@dataclass(frozen=True)
class Call:
    """One operator at work: its target in torch, and the submodule that it belongs to."""

    program: Program
    target: Any
    origin: str

    def elements(self, value: Values) -> Elements:
        """A value as elements of the trace."""
        return self.program.elements(value, self.origin)

    def refuse(self, reason: str) -> ReaderError:
        """The error that says why this operator cannot be in a Model."""
        return ReaderError(f"{self.origin}: {reason}")


class UnknownOperator(ReaderError):
    """No layer of a Model computes this, in whichever way the module is called."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"{origin}: no layer of a Model computes this")


# Operators all of whose tensors hold values.
PLAIN = (
    "_unsafe_view", "alias", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors",
    "broadcast_to", "cat", "chunk", "clone", "column_stack", "concat", "concatenate", "contiguous",
    "detach", "diagonal", "dsplit", "dstack", "expand", "expand_as", "flatten", "flip",
    "fliplr", "flipud", "hsplit", "hstack", "lift", "lift_fresh", "lift_fresh_copy", "mT",
    "moveaxis", "movedim", "narrow", "narrow_copy", "numpy_T", "permute", "ravel", "repeat",
    "reshape", "reshape_as", "resolve_conj", "resolve_neg", "roll", "select", "select_scatter",
    "slice", "slice_scatter", "split", "split_with_sizes", "squeeze", "stack", "swapaxes",
    "swapdims", "t", "tensor_split", "tile", "transpose", "unbind", "unflatten", "unfold",
    "unsafe_chunk", "unsafe_split", "unsqueeze", "view", "view_as", "vsplit", "vstack",
)  # fmt: skip
# Those with an index tensor among their arguments, and where their values stand.
INDEXED = {
    "gather": (0,),
    "index": (0,),
    "index_copy": (0, 3),
    "index_put": (0, 2),
    "index_select": (0,),
    "repeat_interleave": (0,),
    "take_along_dim": (0,),
}
# Constants in the shape of a value.
SHAPED = (
    "empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like",
    "zeros_like",
)  # fmt: skip


def handler(name: str) -> Handler | None:
    """What runs the operator of that name (without a last underscore), or None."""
    if name in PLAIN or name in INDEXED:
        return _moved
    return OTHERS.get(name)


def _moved(call: Call, args: Any, kwargs: dict[str, Any]) -> Any:
    import torch
    from torch.utils import _pytree as pytree

    name = call.target._schema.name.removeprefix("aten::").rstrip("_")
    if "accumulate" in kwargs or (name == "index_put" and len(args) > 3 and args[3]):
        raise call.refuse("it adds values where they meet, which no layer of a Model does")
    if not isinstance(args[0], Values | list | tuple):
        raise call.refuse("it writes values of the network into whole numbers")

    def bare(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            value = call.program.encoded(value.double())
        return value.codes if isinstance(value, Values) else value

    def dressed(value: Any) -> Any:
        return Values(value) if isinstance(value, torch.Tensor) else value

    places = INDEXED.get(name, range(len(args)))
    codes = [pytree.tree_map(bare, a) if k in places else a for k, a in enumerate(args)]
    options = pytree.tree_map(bare, kwargs) if name not in INDEXED else kwargs
    try:
        result = call.target(*codes, **options)
    except RuntimeError:
        # Where the module's memory is laid out so that it can be viewed, a copy is as good.
        if name != "view":
            raise
        result = codes[0].reshape(codes[1])
    if result is codes[0]:
        return args[0]
    return pytree.tree_map(dressed, result)


def _copied(call: Call, args: Any, kwargs: dict[str, Any]) -> Any:
    """copy_: torch's own would take whole numbers for elements."""
    target, source = args[0], args[1]
    if not isinstance(target, Values):
        raise call.refuse("it writes values of the network into whole numbers")
    target.codes.copy_(source.codes if isinstance(source, Values) else _coded(call, source))
    return target


def _coded(call: Call, values: Any) -> Tensor:
    import torch

    return call.program.encoded(torch.as_tensor(values).double()).codes


def _filled(call: Call, args: Any, kwargs: dict[str, Any]) -> Any:
    """fill_ and zero_."""
    value = args[1] if len(args) > 1 else 0.0
    args[0].codes.copy_(value.codes if isinstance(value, Values) else _coded(call, value))
    return args[0]


def _shaped(call: Call, args: Any, kwargs: dict[str, Any]) -> Any:
    import torch

    made = call.target(torch.zeros(args[0].shape, dtype=torch.float64), *args[1:], **kwargs)
    return call.program.encoded(made) if made.is_floating_point() else made


def _converted(call: Call, args: Any, kwargs: dict[str, Any]) -> Any:
    """Another dtype or device: the same values, unless they become whole numbers."""
    import torch

    wanted = [a for a in (*args[1:], *kwargs.values()) if isinstance(a, torch.dtype)]
    wanted += [a.dtype for a in args[1:] if isinstance(a, torch.Tensor)]
    if any(not dtype.is_floating_point for dtype in wanted):
        kind = str(wanted[0]).removeprefix("torch.")
        raise call.refuse(f"it makes values of the network {kind}, which no layer of a Model does")
    if any(dtype in (torch.float16, torch.bfloat16) for dtype in wanted):
        raise call.refuse("it rounds to half precision, which no layer of a Model does")
    name = call.target._schema.name
    copied = "copy" in name or True in args[1:] or kwargs.get("copy")
    return Values(args[0].codes.clone()) if copied else args[0]


def _padded(call: Call, args: Any, kwargs: dict[str, Any]) -> Any:
    """Constants or repeated values around a tensor."""
    value = kwargs.get("value", args[3] if len(args) > 3 else None)
    mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
    if call.target._schema.name == "aten::constant_pad_nd":
        value, mode = kwargs.get("value", args[2] if len(args) > 2 else 0.0), "constant"
    import torch

    code = float(_coded(call, float(value or 0.0)))
    # In float64, which holds these numbers exactly, because some modes are not made for int64.
    fill = code if mode == "constant" else None
    result = torch.nn.functional.pad(args[0].codes.double(), list(args[1]), mode, fill)
    return Values(result.long())


def _size(call: Call, args: Any, kwargs: dict[str, Any]) -> Any:
    shape = args[0].shape
    return shape[args[1]] if len(args) > 1 else list(shape)


OTHERS: dict[str, Handler] = {
    "copy": _copied,
    "fill": _filled,
    "zero": _filled,
    **dict.fromkeys(SHAPED, _shaped),
    **dict.fromkeys(("to", "_to_copy", "type_as"), _converted),
    **dict.fromkeys(("pad", "constant_pad_nd"), _padded),
    **dict.fromkeys(("size", "sym_size"), _size),
    "dim": lambda call, args, kwargs: len(args[0].shape),
    "numel": lambda call, args, kwargs: int(args[0].codes.numel()),
    "sym_numel": lambda call, args, kwargs: int(args[0].codes.numel()),
    "_assert_tensor_metadata": lambda call, args, kwargs: None,
}
