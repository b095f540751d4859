"""The goals about time a step: against loading the weights, ONNX Runtime, and C++.

Each part is a function from settings to rows. A contender that is wrong is never timed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import reference

from ..floor.roofline import SIZES, long_enough, measure_roofline, weights_of
from ..models import plain_model
from .contenders import (
    OURS,
    SEQUENCE,
    STEP,
    Contender,
    check_truth,
    checked,
    our_contender,
    refusal,
    road_named,
)
from .rows import Row, Settings, Tell
from .timing import Times, about, measure, ratios

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastlstm.model import Model

FLOOR_GOALS = {64: 0.85, 128: 1.1, 256: 1.1, 512: 1.1}
SEQUENCE_GOALS = {8: 0.2, 16: 0.2, 32: 0.3, 64: 0.4, 128: 0.6, 256: 0.75, 512: 0.75}
STEP_GOALS = {8: 0.06, 16: 0.06, 32: 0.06, 64: 0.12, 128: 0.25, 256: 0.5}
OTHER_GOAL = 0.8
# Their names, whether they have as many inputs as units, and what else makes them.
OTHER_NETWORKS: tuple[tuple[str, bool, dict[str, Any]], ...] = (
    ("GRU, one input", False, {"cell": "GRU"}),
    ("LSTM, input = hidden", True, {"cell": "LSTM"}),
    ("2 layers of LSTM", False, {"cell": "LSTM", "layers": 2}),
    ("3 layers of LSTM", False, {"cell": "LSTM", "layers": 3}),
)
OTHER_SIZES = (8, 16, 32, 64, 128, 256, 512)
PUSH_GOAL_NS, STEP_GOAL_NS = 200, 150
# RTNeural, one layer of one input and a Dense to one output, nanoseconds a sample in a C++ loop.
# Measured once on this kind of machine (Zen 5 server, AVX-512), sizes fixed at compile time: the
# fastest of all its backends built by gcc 12 and clang 16 at -O3 -march=native, with and without
# -ffast-math, whose error was about 1e-7.
CPP_NS = {
    "LSTM": {
        8: 36.7, 16: 44.8, 20: 101, 24: 86.4, 32: 94.7, 40: 142, 64: 424, 96: 884, 128: 1499,
        256: 7387,
    },
    "GRU": {
        8: 35.0, 16: 35.9, 20: 86.5, 24: 79.4, 32: 98.0, 40: 158, 64: 242, 96: 667, 128: 1165,
        256: 3443,
    },
}  # fmt: skip
# Calls of a whole sequence in each round, by the hidden size up to which that many are needed for
# a time that means something; above these, few.
CALLS_UP_TO, FEW_CALLS = {32: 20, 128: 5}, 2


def over_the_floor(settings: Settings, tell: Tell) -> list[Row]:
    """1. An LSTM's step over only loading its weights."""
    result = measure_roofline(
        settings.keep(SIZES),
        rounds=settings.rounds,
        least_steps=min(settings.steps, settings.long_steps),
        most_steps=settings.long_steps,
        clock=settings.clock,
        progress=tell,
    )
    return [
        Row(
            f"H = {row.hidden}",
            row.ratio,
            FLOOR_GOALS.get(row.hidden),
            {
                "step ns": row.step_ns,
                "load ns": row.load_ns,
                "loaded by": row.way,
                "back and forth ns": row.ways_ns["back and forth"],
                "weights bytes": float(row.weights_bytes),
                "error": row.error,
            },
        )
        for row in result.rows
    ]


def _plain_against(
    road: str, goals: Mapping[int, float], settings: Settings, tell: Tell
) -> list[Row]:
    """A plain LSTM of each hidden size that has a goal, against one road."""
    return [
        _against(
            plain_model("LSTM", hidden),
            f"H = {hidden}",
            hidden,
            road,
            goals[hidden],
            settings,
            tell,
        )
        for hidden in settings.keep(goals)
    ]


def over_onnx_by_run(settings: Settings, tell: Tell) -> list[Row]:
    """2. Stream.run over one call of ONNX Runtime for the whole sequence."""
    return _plain_against("ONNX Runtime, sequence", SEQUENCE_GOALS, settings, tell)


def over_onnx_other_layers(settings: Settings, tell: Tell) -> list[Row]:
    """3. The same for GRU, for as many inputs as units, and for stacks."""
    return [
        _against(
            plain_model(hidden=hidden, **options, inputs=hidden if wide else 1),
            f"{what}, H = {hidden}",
            hidden,
            "ONNX Runtime, sequence",
            OTHER_GOAL,
            settings,
            tell,
        )
        for what, wide, options in OTHER_NETWORKS
        for hidden in settings.keep(OTHER_SIZES)
    ]


def over_onnx_by_push(settings: Settings, tell: Tell) -> list[Row]:
    """4. Stream.push over one step of ONNX Runtime with everything bound."""
    return _plain_against("ONNX Runtime bound, by step", STEP_GOALS, settings, tell)


def _against(
    model: Model,
    what: str,
    hidden: int,
    theirs: str,
    goal: float,
    settings: Settings,
    tell: Tell,
) -> Row:
    """Ours over theirs on one model, in the mode of theirs."""
    tell(f"{what}: checking")
    true = check_truth(model)
    rival, verdict = checked(road_named(theirs), model, true)
    if rival is None:
        return Row(what, None, goal, note=refusal(verdict))
    ours, error = our_contender(model, rival.mode, true)
    calls = next((n for most, n in CALLS_UP_TO.items() if hidden <= most), FEW_CALLS)
    times = _measure([ours, rival], model, settings.steps, settings, tell, what, calls)
    return Row(
        what,
        float(np.median(ratios(times[ours.name], times[theirs]))),
        goal,
        {
            "ours ns": times[ours.name].median_ns,
            "ONNX Runtime ns": times[theirs].median_ns,
            "error": error,
            "ONNX Runtime's error": verdict.max_abs_error,
        },
    )


def _measure(
    group: list[Contender],
    model: Model,
    steps: int,
    settings: Settings,
    tell: Tell,
    what: str,
    sequence_calls: int,
) -> dict[str, Times]:
    return measure(
        group,
        reference.check_input(model, steps, seed=2),
        settings.rounds,
        sequence_calls=sequence_calls,
        clock=settings.clock,
        progress=about(tell, what),
    )


def cost_of_a_call(settings: Settings, tell: Tell) -> list[Row]:
    """5. What a call from Python adds to a step."""
    rows = []
    for hidden in settings.keep((8, 32)):
        model = plain_model("LSTM", hidden)
        true = check_truth(model)
        loop, _ = our_contender(model, SEQUENCE, true)
        push, _ = our_contender(model, STEP, true)
        step, verdict = checked(road_named("stream, by step"), model, true)
        if step is None:
            raise ArithmeticError(f"stream, by step: {refusal(verdict)}")
        # More steps than elsewhere: the loop's own call from Python must not count.
        steps = 10 * settings.steps
        times = _measure([loop, push, step], model, steps, settings, tell, f"H = {hidden}", 5)
        loop_times, push_times = times[OURS[SEQUENCE]], times[OURS[STEP]]
        figures: dict[str, Any] = {
            "loop ns": loop_times.median_ns,
            "push ns": push_times.median_ns,
            "step ns": times[step.name].median_ns,
        }
        rows += [
            Row(
                f"push minus loop, H = {hidden}",
                _difference(push_times, loop_times),
                PUSH_GOAL_NS,
                figures,
            ),
            Row(
                f"step minus push, H = {hidden}",
                _difference(times[step.name], push_times),
                STEP_GOAL_NS,
                figures,
            ),
        ]
    return rows


def _difference(times: Times, less: Times) -> float:
    pairs = zip(times.rounds, less.rounds, strict=True)
    return float(np.median([a - b for a, b in pairs]))


def over_cpp(settings: Settings, tell: Tell) -> list[Row]:
    """6. Stream.run over what a C++ library was measured to take."""
    return [
        _over_cpp(cell, hidden, figures, settings, tell)
        for cell, figures in CPP_NS.items()
        for hidden in settings.keep(figures)
    ]


def _over_cpp(
    cell: str, hidden: int, figures: Mapping[int, float], settings: Settings, tell: Tell
) -> Row:
    what = f"{cell}, H = {hidden}"
    tell(f"{what}: checking")
    model = plain_model(cell, hidden)
    ours, error = our_contender(model, SEQUENCE, check_truth(model, settings.steps))
    least = min(settings.steps, settings.long_steps)
    steps = long_enough(weights_of(model), least, settings.long_steps)
    times = _measure([ours], model, steps, settings, tell, what, 1)[ours.name]
    return Row(
        what,
        times.median_ns / figures[hidden],
        1.0,
        {"ours ns": times.median_ns, "C++ ns": figures[hidden], "error": error},
    )
