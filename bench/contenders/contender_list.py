"""Every contender of this process, in the order of the tables: ours, then PyTorch, then ONNX."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from fastlstm.errors import InputError

from . import (
    numpy_reference,
    onnx_runtime,
    opencv_dnn,
    openvino_runtime,
    own_streams,
    torch_cells,
    torch_chain,
    torch_in_place,
    torch_inductor,
    torch_int8,
    torch_script,
)
from .contender import BATCH, RUN, STEP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .contender import Contender

CONTENDERS: tuple[Contender, ...] = (
    *own_streams.CONTENDERS,
    *numpy_reference.CONTENDERS,
    *torch_chain.CONTENDERS,
    *torch_cells.CONTENDERS,
    *torch_in_place.CONTENDERS,
    *torch_script.CONTENDERS,
    *torch_inductor.CONTENDERS,
    *torch_int8.CONTENDERS,
    *onnx_runtime.CONTENDERS,
    *openvino_runtime.CONTENDERS,
    *opencv_dnn.CONTENDERS,
)
# The calls of our own runtime: each is one way of calling, where a foreign runtime is one for all.
OUR_NAMES = frozenset(contender.name for contender in own_streams.CONTENDERS)
# What ratios are taken to, by the ability that a mode needs.
OURS: Mapping[str, str] = MappingProxyType(
    {
        STEP: own_streams.PUSH.name,
        RUN: own_streams.WHOLE.name,
        BATCH: own_streams.MANY.name,
    }
)


def named(name: str) -> Contender:
    """The contender of that name; InputError lists the names there are."""
    for contender in CONTENDERS:
        if contender.name == name:
            return contender
    names = ", ".join(repr(contender.name) for contender in CONTENDERS)
    raise InputError(f"expected a contender among {names}, found {name!r}")
