"""Stacks of published sizes, one sample at a time: ours, the floor, and a card's published time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm import reference

from ..floor.roofline import floor, loaders, weights_of
from ..models import plain_model
from .contenders import STEP, our_contender
from .rows import Row, Settings, Tell
from .timing import about, measure, ratios

OUTPUTS = 32
# About as many bytes of weights are read in each turn of a contender, so that a great network
# takes fewer steps; beyond LONG_BYTES of weights there are fewer rounds too.
TURN_BYTES, LONG_BYTES, FEW_ROUNDS = 1 << 32, 1 << 25, 5


class Rung(NamedTuple):
    """`layers` LSTM layers of `hidden` units and inputs, and the card's mean time a step."""

    layers: int
    hidden: int
    card_us: float


# The shapes and mean latencies that Myrtle publishes for VOLLO on its FPGA cards, one sample at a
# time: "LSTM benchmark" in the product's documentation, version 25.1.2. The first four on an
# IA-840F, the last on a V80. Its maker's figures: nothing of it was run here.
LADDER = (
    Rung(2, 128, 1.9),
    Rung(3, 256, 3.0),
    Rung(3, 480, 4.2),
    Rung(6, 320, 4.3),
    Rung(3, 960, 8.5),
)


def climb(settings: Settings, tell: Tell) -> list[Row]:
    """9. One step by push on each rung, over only loading all its weights."""
    return [
        _row(rung, settings, tell)
        for rung in LADDER
        if settings.sizes is None or rung.hidden in settings.sizes
    ]


def _row(rung: Rung, settings: Settings, tell: Tell) -> Row:
    what = f"{rung.layers} x {rung.hidden}"
    tell(f"{what}: checking")
    model = plain_model(
        "LSTM", rung.hidden, inputs=rung.hidden, layers=rung.layers, outputs=OUTPUTS
    )
    ours, error = our_contender(model, STEP)
    weights = weights_of(model)
    steps = min(settings.steps, max(100, TURN_BYTES // weights.nbytes))
    rounds = min(settings.rounds, FEW_ROUNDS) if weights.nbytes > LONG_BYTES else settings.rounds
    times = measure(
        [ours, *loaders(weights)],
        reference.check_input(model, steps, seed=2),
        rounds,
        sequence_calls=1,
        clock=settings.clock,
        progress=about(tell, what),
    )
    way, load = floor(times)
    step_ns = times[ours.name].median_ns
    return Row(
        what,
        float(np.median(ratios(times[ours.name], load))),
        figures={
            "push us": step_ns / 1000,
            "p99 us": times[ours.name].p99_ns / 1000,
            "load us": load.median_ns / 1000,
            "loaded by": way,
            "FPGA card us": rung.card_us,
            "ours over the card": step_ns / 1000 / rung.card_us,
            "parameters": float(model.num_parameters),
            "error": error,
        },
    )
