"""Measure every goal of speed on this machine, one thread, and write what was met and what not.

`python -m fastlstm.bench.goals --json limits.json --markdown limits.md`, or `make limits`. Leave
the machine alone meanwhile: a part that a busy machine spoils cannot be told from one that is slow.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .. import machine
from .cold_start import starts
from .ladder import OUTPUTS, climb
from .parts import (
    cost_of_a_call,
    over_cpp,
    over_onnx_by_push,
    over_onnx_by_run,
    over_onnx_other_layers,
    over_the_floor,
)
from .report import SCHEMA, markdown
from .rows import QUICK, Part, Settings
from .tail import HIDDEN, slowest_calls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .rows import Row, Tell

RUN_OVER_ONNX = (
    "`Stream.run` over ONNX Runtime's one call for the same sequence, time over time; a "
    "Dense to one output on top"
)
PARTS = {
    1: Part(
        "The compiled loop over only loading the weights",
        "time of a step in `Stream.run` over the time in which a compiled loop loads the same "
        "weights once, in order; LSTM, one input, no other layer",
        over_the_floor,
    ),
    2: Part(
        "Whole sequences beside ONNX Runtime, LSTM",
        f"{RUN_OVER_ONNX}; one layer, one input",
        over_onnx_by_run,
    ),
    3: Part(
        "Whole sequences beside ONNX Runtime, other networks",
        f"{RUN_OVER_ONNX}; one input unless it says so",
        over_onnx_other_layers,
    ),
    4: Part(
        "One step beside ONNX Runtime with bound buffers",
        "`Stream.push` over ONNX Runtime's `run_with_iobinding`, time over time; LSTM, one input, "
        "a Dense to one output, the state carried",
        over_onnx_by_push,
    ),
    5: Part(
        "What a call from Python costs",
        "difference in nanoseconds a step, each called in a Python loop whose own cost is in it",
        cost_of_a_call,
    ),
    6: Part(
        "Beside C++",
        "time of a step in `Stream.run` over RTNeural's in a C++ loop, which was measured once on "
        "this kind of machine and not now; one input, a Dense to one output",
        over_cpp,
    ),
    7: Part(
        "From the start of a process to its first output",
        "seconds, median; a saved LSTM of 32 units is loaded, and one step taken",
        starts,
    ),
    8: Part(
        "The tail of single calls",
        f"99.9th percentile of single calls of `push` over their median, LSTM of {HIDDEN} "
        "units, the timer's own time included",
        slowest_calls,
    ),
    9: Part(
        "Stacks of published sizes, step by step",
        "time of a `push` over only loading all weights once; LSTM layers with as many inputs as "
        f"units, and a Dense to {OUTPUTS}. Beside it the mean that the maker of an "
        "FPGA card publishes for the same shapes, measured by the maker",
        climb,
    ),
}


def measure_goals(
    numbers: Sequence[int],
    settings: Settings,
    tell: Tell,
    parts: Mapping[int, Part] = PARTS,
) -> dict[str, Any]:
    """Measure these parts; a document as markdown() takes it.

    A part that fails is in the document with why, and the others go on.
    """
    before = machine.describe()
    done = []
    for number in numbers:
        part = parts[number]
        tell(f"part {number}: {part.title}")
        begin = perf_counter()
        rows: list[Row] = []
        failure = ""
        try:
            rows = part.measure(settings, lambda words, n=number: tell(f"part {n}: {words}"))  # type: ignore[misc]
        except Exception as error:  # a quarter of an hour of other parts is not to be lost
            failure = f"{type(error).__name__}: {error}"
        seconds = perf_counter() - begin
        tell(f"part {number}: {failure or 'done'}, {seconds:.0f} s")
        done.append(
            {
                "number": number,
                "title": part.title,
                "measured_as": part.measured_as,
                "seconds": round(seconds, 1),
                "failure": failure,
                "rows": [{**asdict(row), "met": row.met} for row in rows],
            }
        )
    return {
        "schema": SCHEMA,
        "machine": before,
        "rounds": settings.rounds,
        "settings": settings.to_dict(),
        "parts": done,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the files, and say where; the exit code is 1 where a part failed."""
    parser = argparse.ArgumentParser(
        prog="python -m fastlstm.bench.goals", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--markdown", type=Path, help="write the tables here, else to the screen")
    parser.add_argument(
        "--only", type=_numbers, default=list(PARTS), help="parts to measure, such as 1,5"
    )
    parser.add_argument("--rounds", type=int, help=f"rounds, {Settings().rounds} unless told")
    parser.add_argument(
        "--quick", action="store_true", help="a little of all, to see that it runs; means nothing"
    )
    given = parser.parse_args(arguments)
    settings = QUICK if given.quick else Settings()
    if given.rounds is not None:
        if given.rounds < 1:
            parser.error(f"--rounds: expected at least 1, found {given.rounds}")
        settings = replace(settings, rounds=given.rounds)
    for path in (given.json, given.markdown):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    document = measure_goals(given.only, settings, _tell)
    text = markdown(document)
    if given.json is not None:
        given.json.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", "utf-8")
        print(f"wrote {given.json}")
    if given.markdown is not None:
        given.markdown.write_text(text, "utf-8")
        print(f"wrote {given.markdown}")
    else:
        print(text)
    return 1 if any(part["failure"] for part in document["parts"]) else 0


def _numbers(text: str) -> list[int]:
    numbers = [int(word) if word.isdecimal() else 0 for word in text.split(",")]
    if not set(numbers) <= set(PARTS):
        raise argparse.ArgumentTypeError(
            f"expected numbers of parts from 1 to {max(PARTS)}, such as 1,5; found {text!r}"
        )
    return sorted(set(numbers))


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
