"""One program, one model file, one process: its first output at once, then what its steps cost.

`python -P first_output.py PROGRAM MODEL INPUT.npy start|steps|allocations [COUNTER]`. A script of
its own, started by processes.py: it imports nothing of fastlstm, because that would be in the
time of every program.
"""

from __future__ import annotations

import os
import sys
from time import perf_counter_ns
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[Any], Any]

# A later step: the median over blocks of steps, of as many blocks as fit, but a few at least.
BLOCKS, LEAST_BLOCKS, BLOCK, ENOUGH_NS = 21, 3, 100, 2_000_000_000
WARM_STEPS, COUNTED_STEPS = 100, 400


def main() -> None:
    """Print the first output on a line, then one line of JSON; or only that, with `failed`."""
    # What a runtime itself prints must not get among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    program, model, samples, what, *counter = sys.argv[1:]
    try:
        x = np.load(samples)
        step = load(program)(model)
        begin = perf_counter_ns()
        y = step(x[0])
        end = perf_counter_ns()
        print(*y.tolist(), file=answers, flush=True)
        figures: dict[str, Any] = {"first_call_ns": end - begin}
        if what == "steps":
            figures |= steps(step, x, y)
        elif what == "allocations":
            figures["allocations_per_step"] = allocations(step, x, *counter)
    except Exception as error:  # a foreign runtime may raise anything
        words = f"{type(error).__name__}: {error}"
        figures = {"failed": words}
        if isinstance(error, NotImplementedError):
            figures = {"failed": str(error), "unsupported": True}
    import json

    print(json.dumps(figures), file=answers, flush=True)


def load(path: str) -> Callable[[str], Step]:
    """The `load` of a program, which is a file that no package holds."""
    # Not by import: its name may be that of a library, and no byte code of it should be written.
    module = sys.modules["program"] = ModuleType("program")
    module.__file__ = path
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), module.__dict__)
    found: Callable[[str], Step] = module.load
    return found


def steps(step: Step, x: Any, first: Any) -> dict[str, Any]:
    """All outputs over x (time, I), a later step in nanoseconds, and what the process holds."""
    import gc

    outputs = [np.array(first)]
    outputs += [np.array(step(sample)) for sample in x[1:]]
    samples = [x[k % len(x)] for k in range(BLOCK)]
    blocks: list[float] = []
    gc.collect()
    gc.disable()
    while len(blocks) < LEAST_BLOCKS or (len(blocks) < BLOCKS and sum(blocks) < ENOUGH_NS / BLOCK):
        begin = perf_counter_ns()
        for sample in samples:
            step(sample)
        end = perf_counter_ns()
        blocks.append((end - begin) / BLOCK)
    return {
        "outputs": np.asarray(outputs, np.float64).tolist(),
        "steps_ns": float(np.median(blocks)),
        "resident_bytes": resident_bytes(),
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
        "libraries": mapped_files(),
    }


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM, or None where the system does not say so."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            (size,) = (line.split()[1] for line in file if line.startswith("VmRSS:"))
    except (OSError, ValueError):
        return None
    return 1024 * int(size)


def mapped_files() -> list[str]:
    """The files that this process has mapped, where the system says so: its shared libraries."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(None, 5) for line in file]
    except OSError:
        return []
    return sorted({line[5] for line in lines if len(line) == 6 and line[5].startswith("/")})


def allocations(step: Step, x: Any, library: str) -> float:
    """Calls of malloc and its kin in a step, beyond those of a loop over nothing.

    `library` is count_allocations.c, compiled, and preloaded into this process.
    """
    import ctypes
    import gc

    count = ctypes.CDLL(library).allocations_counted
    count.restype = ctypes.c_ulonglong
    warm, counted = ([x[k % len(x)] for k in range(n)] for n in (WARM_STEPS, COUNTED_STEPS))

    def calls(of: Step, samples: list[Any]) -> int:
        before = count()
        for sample in samples:
            of(sample)
        return int(count() - before)

    def nothing(sample: Any) -> None:
        pass

    gc.collect()
    gc.disable()
    for of in (step, nothing):
        calls(of, warm)
    return (calls(step, counted) - calls(nothing, counted)) / COUNTED_STEPS


if __name__ == "__main__":
    main()
