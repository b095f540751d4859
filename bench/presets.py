"""The ready plans: quick, ladder, stacks, audio, and a model of the user's own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .benchmark import Plan
from .goals.ladder import LADDER, OUTPUTS
from .models import plain_model
from .reports.document import Published
from .timing.modes import CLOSED, PERIODIC, POISSON, SEQUENCE, STREAMS, Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlstm.model import Model

    from .contenders.contender import Contender

LADDER_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
AUDIO_RATE_HZ, AUDIO_BLOCK = 48_000.0, 64
# Single calls of an audio preset: p99.9 needs 3,688 in all.
AUDIO_ROUNDS, AUDIO_CALLS = 7, 530
# A stack is also called at this rate, as its published figures were: spaced, so that between two
# calls the weights may leave the caches.
SPACED_HZ, SPACED_CALLS = 250.0, 60
ARRIVALS_HZ, ARRIVALS = 1000.0, 250
STREAM_COUNTS = (16,)


def quick(contenders: Sequence[Contender]) -> Plan:
    """One small LSTM in every kind of mode, in under a minute; what compiles C++ is left out."""
    return Plan(
        "quick",
        {"LSTM 1x32": plain_model("LSTM", 32)},
        (
            Mode(CLOSED),
            Mode(SEQUENCE),
            Mode(PERIODIC, calls=60, block=AUDIO_BLOCK, rate_hz=AUDIO_RATE_HZ),
            Mode(POISSON, calls=60, rate_hz=ARRIVALS_HZ),
            Mode(STREAMS, calls=100, streams=16),
        ),
        tuple(contender for contender in contenders if not contender.builds),
        rounds=9,
        hidden={"LSTM 1x32": 32},
    )


def ladder(contenders: Sequence[Contender], sizes: Sequence[int] = LADDER_SIZES) -> Plan:
    """One LSTM layer, one input and a Dense to one output, over hidden sizes."""
    names = {size: f"LSTM 1x{size}" for size in sizes}
    return Plan(
        "ladder",
        {name: plain_model("LSTM", size) for size, name in names.items()},
        (Mode(CLOSED), Mode(SEQUENCE)),
        tuple(contenders),
        hidden={name: size for size, name in names.items()},
    )


def stacks(contenders: Sequence[Contender]) -> Plan:
    """The stacks whose times on FPGA cards their maker publishes."""
    names = {rung: f"LSTM {rung.layers}x{rung.hidden}" for rung in LADDER}
    closed = Mode(CLOSED)
    return Plan(
        "stacks",
        {
            name: plain_model(
                "LSTM", rung.hidden, inputs=rung.hidden, layers=rung.layers, outputs=OUTPUTS
            )
            for rung, name in names.items()
        },
        (closed, Mode(PERIODIC, calls=SPACED_CALLS, rate_hz=SPACED_HZ)),
        tuple(contenders),
        rounds=7,
        published=tuple(
            Published(
                model=name,
                mode=closed.name,
                what="an FPGA card, its maker's mean",
                ns=1000 * rung.card_us,
                source="Myrtle, documentation of VOLLO 25.1.2, LSTM benchmark; not run here",
            )
            for rung, name in names.items()
        ),
    )


def audio(contenders: Sequence[Contender]) -> Plan:
    """Blocks of 64 samples at 48 kHz through the sizes that guitar and effect models have."""
    shapes = {"LSTM 1x16": (1, 16), "LSTM 1x40": (1, 40), "LSTM 2x24": (2, 24)}
    return Plan(
        "audio",
        {
            name: plain_model("LSTM", hidden, layers=layers)
            for name, (layers, hidden) in shapes.items()
        },
        (
            Mode(PERIODIC, calls=AUDIO_CALLS, block=AUDIO_BLOCK, rate_hz=AUDIO_RATE_HZ),
            Mode(SEQUENCE, steps=AUDIO_BLOCK, rate_hz=AUDIO_RATE_HZ),
            Mode(CLOSED, rate_hz=AUDIO_RATE_HZ),
        ),
        tuple(contenders),
        rounds=AUDIO_ROUNDS,
        floor=False,
    )


def own_model(
    contenders: Sequence[Contender],
    name: str,
    model: Model,
    *,
    rate_hz: float | None = None,
    block: int = 1,
    streams: Sequence[int] = STREAM_COUNTS,
) -> Plan:
    """A user's model on every road, start-up and memory too.

    Where a rate of samples is declared, also at that rate in blocks, timed from when each is due.
    """
    modes = [Mode(CLOSED, rate_hz=rate_hz), Mode(SEQUENCE, rate_hz=rate_hz)]
    if rate_hz is None:
        modes.append(Mode(POISSON, calls=ARRIVALS, rate_hz=ARRIVALS_HZ))
    else:
        # A round of a second at the least that percentiles need, at the most that patience bears.
        calls = max(60, min(ARRIVALS, round(rate_hz / block)))
        modes.append(Mode(PERIODIC, calls=calls, block=block, rate_hz=rate_hz))
    modes += [Mode(STREAMS, streams=count) for count in streams]
    if model.bidirectional:
        modes = [mode for mode in modes if mode.kind == SEQUENCE]
    return Plan(
        "model",
        {name: model},
        tuple(modes),
        tuple(contenders),
        cold_starts=1,
        warm_starts=3,
        floor=not model.bidirectional,
    )


def with_rounds(plan: Plan, rounds: int | None) -> Plan:
    """The plan with so many rounds, or as it is."""
    return plan if rounds is None else replace(plan, rounds=rounds)


def without_starts(plan: Plan) -> Plan:
    """The plan without process start, memory and allocations."""
    return replace(plan, cold_starts=0, warm_starts=0)
