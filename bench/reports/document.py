"""The result of a benchmark as a document: what is written as JSON, and what every report reads.

Schema `fastlstm-bench-2`; docs/bench.md explains each member. A report formats these figures and
computes none that a reader of the JSON would not have.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastlstm.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "fastlstm-bench-2"


class _Part(BaseModel):
    # Other members may come with a later version of the same schema: they are kept out of the way.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Estimate(_Part):
    """A median over rounds and its confidence interval."""

    value: float
    low: float
    high: float


class Percentile(_Part):
    """One percentile of single calls, with the confidence interval that the ranks give."""

    percent: float  # 50, 90, 99, 99.9
    ns: int
    low: int
    high: int


class Latency(_Part):
    """Single calls: how many, their histogram, and the percentiles that so many calls support."""

    samples: int
    # HdrHistogram V2, compressed, base64: nanoseconds, 3 significant digits.
    histogram: str
    # Without those for which there are too few samples.
    percentiles: tuple[Percentile, ...]
    max_ns: int


class Deadline(_Part):
    """Scheduled calls: when each was due, and how many were done too late."""

    period_ns: float  # mean time between two calls
    missed: int
    calls: int
    # The contender is slower than the calls come: its latencies grow for as long as one measures.
    overrun: bool


class Row(_Part):
    """One contender on one model in one mode. Where `note` is set it was not timed, and why."""

    model: str
    mode: str
    contender: str
    # Nanoseconds a time step in a loop; of scheduled calls, the median latency of one call.
    ns: Estimate | None = None
    # The same over that of our own runtime, taken within each round.
    ratio: Estimate | None = None
    rounds_ns: tuple[float, ...] = ()
    latency: Latency | None = None
    deadline: Deadline | None = None
    # How many times faster than the samples of the mode's declared rate come.
    times_real_time: float | None = None
    error: float | None = None  # greatest absolute difference from the float64 reference
    bound: float | None = None  # ... that a contender of float32 may have
    note: str = ""


class Start(_Part):
    """What a program pays that loads one shipped file with one runtime; each in its own process."""

    model: str
    contender: str
    # From the start of the process to its first output, seconds: caches of machine code empty, and
    # as the run before left them. None where a runtime keeps no such cache.
    cold_s: Estimate | None = None
    warm_s: Estimate | None = None
    first_call_ns: float | None = None
    steps_ns: float | None = None  # a step after that
    allocations_per_step: float | None = None  # malloc and its kin, Python's own objects included
    resident_bytes: int | None = None  # after the steps
    file_bytes: int | None = None  # what one ships for this model
    library_bytes: int | None = None  # what has to be installed, beside Python
    error: float | None = None
    note: str = ""


class ContenderInfo(_Part):
    """Who was timed, in which version and configuration."""

    name: str
    configuration: str
    version: str
    precision: str
    ours: bool = False
    floor: bool = False  # no contender: only loads the weights


class ModeInfo(_Part):
    """One way of calling."""

    name: str
    kind: Literal["closed", "sequence", "periodic", "poisson", "streams"]
    # In words: what a call is, and what its time is counted from.
    meaning: str
    ours: str  # the contender that the ratios are taken to
    unit: Literal["step", "call"]  # what `ns` is nanoseconds of
    block: int = 1  # time steps in a call
    streams: int = 1
    rate_hz: float | None = None  # samples a second that the mode declares


class ModelInfo(_Part):
    """One model that was timed."""

    name: str
    layers: str
    inputs: int
    outputs: int
    parameters: int
    hidden: int | None = None  # of a plain model


class Noise(_Part):
    """What else went on while it was measured."""

    load_before: float | None = None
    load_after: float | None = None
    # A fixed loop, timed in each round: its greatest slowdown over its fastest, and how far its
    # 90th percentile is above its median.
    calibration_ns: float
    calibration_spread: float
    calibration_worst: float
    stolen: float | None = None  # share of the CPU time that the hypervisor took
    involuntary_switches: int | None = None
    warnings: tuple[str, ...] = ()


class Published(_Part):
    """A figure that a maker publishes for the same shape; not measured here."""

    model: str
    mode: str
    what: str
    ns: float
    source: str


class Advice(_Part):
    """One question about the model, the contender that answers it best, and why."""

    question: str
    contender: str
    reasons: tuple[str, ...]


class Document(_Part):
    """One run of the benchmark."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    preset: str
    command: str
    started: str  # ISO 8601, UTC
    seconds: float
    machine: dict[str, Any]
    noise: Noise
    settings: dict[str, Any]
    confidence: float  # of every interval
    contenders: tuple[ContenderInfo, ...]
    modes: tuple[ModeInfo, ...]
    models: tuple[ModelInfo, ...]
    rows: tuple[Row, ...]
    starts: tuple[Start, ...] = ()
    published: tuple[Published, ...] = ()
    advice: tuple[Advice, ...] = ()

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True
    )

    def contender(self, name: str) -> ContenderInfo:
        """The contender of that name."""
        return next(one for one in self.contenders if one.name == name)

    def to_json(self) -> str:
        """The document as text."""
        return self.model_dump_json(indent=1, by_alias=True, exclude_none=True) + "\n"


def write(document: Document, path: Path) -> None:
    """Write a document as JSON."""
    path.write_text(document.to_json(), "utf-8")


def read(path: Path) -> Document:
    """A document from its JSON; InputError says what is wrong with another file."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: expected the JSON of `fastlstm bench`, found {error}") from None
    found = content.get("schema") if isinstance(content, dict) else type(content).__name__
    if found != SCHEMA:
        raise InputError(
            f"{path}: expected a result of schema {SCHEMA}, found {found!r}: "
            "write one with `fastlstm bench quick --json FILE`"
        )
    try:
        return Document.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']}") from None
