"""The plan of a network: what is compiled, and what a cached program is known by.

A plan holds sizes and offsets alone, so models of one architecture share one compiled program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Projection(NamedTuple):
    """The product that follows an LSTM with a projection, laid out as a Dense without bias."""

    width: int
    vectors: int
    sets: int
    parts: int
    weights: int


class SpanPlan(NamedTuple):
    """Where a layer finds and leaves the values of a span of time steps; offsets in the scratch."""

    source: int  # where its input rows begin, -1 for the caller's own
    source_size: int  # float32 from one input row to the next
    other: int  # where the rows that a Residual adds begin, -1 for the caller's own
    other_size: int
    result: int
    result_size: int
    half: int  # where the input half's sums go, -1 if each step takes its own
    half_size: int
    tile: int  # time steps that share each load of an input weight


@dataclass(frozen=True)
class LayerPlan:
    """Sizes and offsets of one layer; offsets count float32, in the weights or the memory."""

    kind: str
    inputs: int
    outputs: int
    hidden: int  # units of a recurrent layer; more or fewer than outputs with a projection
    width: int  # lanes of a block
    vectors: int  # vectors a row: gates of a block, or blocks of a group
    sets: int  # independent accumulators of each
    parts: int  # blocks, or groups
    ahead: int  # how far ahead of the reading weights are prefetched, 0 for not at all
    activation: int
    weights: int  # where its weights begin
    source: tuple[int, int]  # where its input lies after an even and after an odd step
    other: tuple[int, int]  # ... and where what a Residual adds to it
    reading: int  # ... and which values of that
    result: tuple[int, int]  # where its output goes in an even and in an odd step
    cell: int  # where c lies in an LSTM, and the last input of a Difference
    kept: int  # where values between two products of one step lie
    dot: bool  # a Dense of so few outputs that each is a dot product
    peephole: bool
    reset_before: bool
    projection: Projection | None
    part: int  # float32 of one part of the weights
    skip: int  # ... from its bias row to its input rows
    lanes: int  # float32 that a layer of whole vectors reads of its input
    span: SpanPlan


@dataclass(frozen=True)
class Plan:
    """A whole network."""

    layers: tuple[LayerPlan, ...]
    inputs: int
    outputs: int
    weights_size: int
    memory_size: int
    output: int  # offset of the buffer that `Stream.output` shows
    span: int  # time steps that `run` takes layer by layer, 0 if it goes step by step
    scratch_size: int  # float32 that `run` needs beside the memory
