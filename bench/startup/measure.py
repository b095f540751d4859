"""What a program pays that ships one model file, with each runtime: the starts of a document.

Each figure comes from processes of their own: one that fills the caches of machine code, one that
is checked against the reference, one whose allocations are counted, and in shuffled rounds those
whose start is timed, with these caches empty (cold) and as the run before left them (warm). What
was read from disk before, programs and byte code, is in the system's memory in all that are timed.
"""

from __future__ import annotations

import random
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from ..reports.document import Estimate, Start
from ..timing.admission import Judge
from ..timing.statistics import median_interval
from .allocation_counter import build_counter, counting
from .installed_size import Installed
from .processes import LIMIT_S, ProgramFailed, start
from .program_list import PROGRAMS
from .shipped_files import ShippedFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from fastlstm.model import Model

    from .processes import Answer
    from .program_list import Program

COLD, WARM = "cold", "warm"


def measure_starts(
    models: Mapping[str, Model],
    *,
    contenders: Sequence[Program] = PROGRAMS,
    cold: int,
    warm: int,
    clock: Callable[[], int] = perf_counter_ns,
    limit_s: float = LIMIT_S,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[Start]:
    """One Start for each program on each model, from `cold` and `warm` timed starts of each.

    A program that is missing, refuses the model, takes more than `limit_s` seconds in one process,
    or whose outputs are not those of the reference, has a note and no times.
    """
    tell = progress or (lambda words: None)
    installed = Installed()
    found: list[Start] = []
    with tempfile.TemporaryDirectory(prefix="fastlstm-") as name:
        folder = Path(name)
        counter = build_counter(folder)
        for k, (model_name, model) in enumerate(models.items()):
            place = folder / f"model{k}"
            place.mkdir()
            entries = _Entries(model_name, model, place, installed, counter, clock, limit_s, tell)
            found += entries.measure(contenders, cold, warm, seed)
    return found


@dataclass
class _Entry:
    """One program on one model, and what is known of it so far."""

    program: Program
    known: dict[str, Any]
    file: Path | None = None
    seconds: dict[str, list[float]] = field(default_factory=lambda: {COLD: [], WARM: []})
    first_calls_ns: list[float] = field(default_factory=list)

    @property
    def note(self) -> str:
        return str(self.known.get("note", ""))

    def refuse(self, note: str) -> None:
        """Take back what was measured in time and say why."""
        self.known["note"] = note
        for name in ("first_call_ns", "steps_ns", "allocations_per_step", "resident_bytes"):
            self.known.pop(name, None)

    def result(self, model: str) -> Start:
        """What is written in the document."""
        times: dict[str, Any] = {}
        if not self.note:
            for name, values in self.seconds.items():
                times[f"{name}_s"] = _estimate(values) if values else None
            if self.first_calls_ns:
                times["first_call_ns"] = float(np.median(self.first_calls_ns))
        return Start(model=model, contender=self.program.name, **{**self.known, **times})


class _Entries:
    """All programs on one model."""

    def __init__(
        self,
        name: str,
        model: Model,
        folder: Path,
        installed: Installed,
        counter: Path | None,
        clock: Callable[[], int],
        limit_s: float,
        tell: Callable[[str], None],
    ) -> None:
        self.name, self.model, self.folder = name, model, folder
        self.installed, self.counter = installed, counter
        self.clock, self.limit_s, self.tell = clock, limit_s, tell
        self.files, self.judge = ShippedFiles(model, folder), Judge(model)
        self.input = folder / "input.npy"
        # Some runtimes unpack a file into the folder for temporary files.
        self.scratch = folder / "scratch"
        self.scratch.mkdir()

    def measure(self, programs: Sequence[Program], cold: int, warm: int, seed: int) -> list[Start]:
        """Check all, then start those that are right, in rounds."""
        entries = [_Entry(program, {}) for program in programs]
        if self.model.bidirectional:
            for entry in entries:
                entry.refuse(
                    "unsupported: a bidirectional layer needs the whole sequence, the samples to "
                    "come included"
                )
            return [entry.result(self.name) for entry in entries]
        np.save(self.input, self.judge.x)
        for entry in entries:
            self.tell(f"{self.name}: checking a program with {entry.program.name}")
            self._attempt(entry, self._check)
        rng = random.Random(seed)
        for k in range(max(cold, warm)):
            turns = [(entry, WARM) for entry in entries if k < warm]
            turns += [(entry, COLD) for entry in entries if k < cold and entry.program.cache]
            rng.shuffle(turns)
            for entry, kind in turns:
                if not entry.note:
                    self.tell(f"{self.name}: {kind} start {k + 1} with {entry.program.name}")
                    self._attempt(entry, self._time, kind, k)
        return [entry.result(self.name) for entry in entries]

    def _attempt(self, entry: _Entry, what: Callable[..., None], *arguments: Any) -> None:
        try:
            what(entry, *arguments)
        except ProgramFailed as error:
            entry.refuse(str(error))

    def _check(self, entry: _Entry) -> None:
        """Everything but the times of the start."""
        program = entry.program
        if missing := program.missing():
            raise ProgramFailed(f"missing: {missing}")
        entry.file, reason = self.files.file(program.ships)
        if entry.file is None:
            raise ProgramFailed(reason)
        entry.known["file_bytes"] = entry.file.stat().st_size
        if program.cache:
            # A process that has compiled holds more memory than one that found it done.
            self._start(entry, "start")
        figures = self._start(entry, "steps").figures
        entry.known["library_bytes"] = self.installed.size(
            (*program.imports, "numpy"), figures["modules"], figures["libraries"]
        )
        outputs = np.array(figures["outputs"], np.float64)
        error = self._distance(outputs, self.judge.truth.output)
        entry.known["error"] = error if np.isfinite(error) else None
        self._hold(error)
        for name in ("first_call_ns", "steps_ns", "resident_bytes"):
            entry.known[name] = figures[name]
        if self.counter is not None:
            counted = self._start(
                entry, "allocations", str(self.counter), more=counting(self.counter)
            )
            entry.known["allocations_per_step"] = counted.figures["allocations_per_step"]

    def _time(self, entry: _Entry, kind: str, k: int) -> None:
        answer = self._start(entry, "start", cache=f"cold{k}" if kind == COLD else WARM)
        # What is timed is held to the reference too, not only the process that was checked.
        self._hold(self._distance(answer.first, self.judge.truth.output[0]))
        entry.seconds[kind].append(answer.seconds)
        if kind == WARM:
            entry.first_calls_ns.append(answer.figures["first_call_ns"])

    def _start(
        self,
        entry: _Entry,
        *arguments: str,
        cache: str = WARM,
        more: Mapping[str, str] | None = None,
    ) -> Answer:
        program = entry.program
        environment = {"TMPDIR": str(self.scratch), **(more or {})}
        if program.cache:
            # Inductor hands its folder to a compiler, which no space in the name survives.
            name = re.sub(r"\W", "-", f"{program.name}-{cache}")
            environment[program.cache] = str(self.folder / name)
        return start(
            program.script,
            (str(entry.file), str(self.input), *arguments),
            environment,
            clock=self.clock,
            limit_s=self.limit_s,
        )

    def _distance(self, found: NDArray[np.float64], true: NDArray[Any]) -> float:
        if found.shape != true.shape:
            raise ProgramFailed(f"refused: expected outputs {true.shape}, found {found.shape}")
        return float(np.abs(found - true).max(initial=0))

    def _hold(self, error: float) -> None:
        """Raise ProgramFailed for an error that a float32 runtime may not have."""
        bound = self.judge.truth.bound
        if not error <= bound:
            bound = max(bound, self.judge.yardstick.bounds[0])
        # Written so that a NaN anywhere is refused.
        if not error <= bound < np.inf:
            raise ProgramFailed(
                f"refused: differs from the reference by {error:.2e}, allowed {bound:.2e}"
            )


def _estimate(values: Sequence[float]) -> Estimate:
    value, low, high = median_interval(values)
    return Estimate(value=value, low=low, high=high)
