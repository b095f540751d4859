"""The matrix of runtimes: every model on every runtime, each check held against the reference.

It judges and formats nothing; a runtime that is missing or refuses a graph is a cell that says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import reference
from fastlstm.errors import ExportError, UnsupportedError
from fastlstm.verify import Yardstick, judge, truth

from . import onnx_graph
from .card import state_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from fastlstm.model import Model
    from fastlstm.verify import Floats, Row, Truth

    from .runtimes import Runner, Runtime

    Feeds = dict[str, NDArray[Any]]
    Graph = bytes | UnsupportedError

STEPS = 64
# The seeds of reference.check_input, one for each sequence of the batch.
SEEDS = range(1, 8)
# Where the stream is cut: blocks of 5, 1 and 5 steps, then five single steps, then two long blocks.
CUTS = (0, 5, 6, 11, 12, 13, 14, 15, 16, 40, STEPS)
# Of each sequence so many steps are real, and what comes after must change nothing.
LENGTHS = (STEPS, 1, 33, 17, 2, STEPS - 1, 48)

STEP, SEQUENCE, PIECES, BATCH, VARIABLE = (
    "one step at a time",
    "one sequence",
    "in pieces",
    "batch of 7",
    "variable lengths",
)
# What stands in the table for all checks of a cell: the first of these that any check has.
WORST_FIRST = ("wrong", "failed")


@dataclass(frozen=True)
class Check:
    """One way of feeding a model to a runtime, and how far that was from the reference.

    The verdict is "ok", "wrong", "refused" (by the runtime, whose words are the note) or "failed"
    (anything else that was raised). The errors are the greatest of all sequences, of outputs and of
    final states; `steps` counts the steps of all sequences.
    """

    name: str
    verdict: str
    steps: int = 0
    max_abs_error: float = float("nan")
    bound: float = float("nan")
    state_error: float = float("nan")
    state_bound: float = float("nan")
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """One model on one runtime: its checks, or what has to be installed first."""

    model: str
    runtime: str
    checks: tuple[Check, ...] = ()
    missing: str = ""

    @property
    def verdict(self) -> str:
        """The word for all checks together.

        "missing", "wrong", "failed", "refused" (every check), "partly" (some refused, the others
        ok), or "ok".
        """
        if self.missing:
            return "missing"
        found = [check.verdict for check in self.checks]
        for verdict in WORST_FIRST:
            if verdict in found:
                return verdict
        if "refused" in found:
            return "partly" if "ok" in found else "refused"
        return "ok"

    @property
    def error(self) -> float | None:
        """The greatest error of the outputs in all checks that ran; None if none did.

        Of a wrong cell, the error that is furthest beyond its bound, of outputs or final states.
        """
        ran = [check for check in self.checks if check.steps]
        pairs = [(check.max_abs_error, check.bound) for check in ran]
        if self.verdict == "wrong":
            pairs += [(check.state_error, check.state_bound) for check in ran]
        error, _ = max(pairs, key=lambda pair: _share(*pair), default=(None, None))
        return error


@dataclass(frozen=True)
class About:
    """One runtime as it is on this machine."""

    name: str
    how: str
    version: str
    missing: str


@dataclass(frozen=True)
class Matrix:
    """Every model on every runtime, model by model. `bounds` has the bound of each's outputs."""

    runtimes: tuple[About, ...]
    bounds: Mapping[str, float]
    cells: tuple[Cell, ...]

    @property
    def ok(self) -> bool:
        """True when something was checked, and nothing was wrong or failed.

        What is missing or refused proves nothing, for or against.
        """
        verdicts = {cell.verdict for cell in self.cells}
        return bool(verdicts & {"ok", "partly"}) and not verdicts & set(WORST_FIRST)

    @property
    def faults(self) -> tuple[Cell, ...]:
        """The cells that are wrong or failed."""
        return tuple(cell for cell in self.cells if cell.verdict in WORST_FIRST)

    def to_dict(self) -> dict[str, Any]:
        """The matrix as plain data, for JSON; figures that were not measured are None."""
        return {
            "ok": self.ok,
            "runtimes": [asdict(about) for about in self.runtimes],
            "bounds": {name: _number(bound) for name, bound in self.bounds.items()},
            "cells": [
                {
                    "model": cell.model,
                    "runtime": cell.runtime,
                    "verdict": cell.verdict,
                    "missing": cell.missing,
                    "checks": [
                        {key: _number(value) for key, value in asdict(check).items()}
                        for check in cell.checks
                    ],
                }
                for cell in self.cells
            ],
        }


def matrix(
    models: Mapping[str, Callable[[], Model]],
    runtimes: Iterable[Runtime] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Matrix:
    """Run every model on every runtime, each check against the reference.

    `models` makes each model when its turn comes; `runtimes` replaces runtime_list.RUNTIMES;
    `progress` is called with each model's and runtime's names before they meet. Never raises for a
    runtime that is missing, refuses, fails or is wrong.
    """
    if runtimes is None:
        from .runtime_list import RUNTIMES

        runtimes = RUNTIMES
    listed = [(runtime, runtime.missing()) for runtime in runtimes]
    cells: list[Cell] = []
    bounds: dict[str, float] = {}
    for position, (name, make) in enumerate(models.items(), start=1):
        subject = _Subject(make())
        bounds[name] = subject.bound
        for runtime, missing in listed:
            if progress is not None:
                progress(f"{position} of {len(models)}, {name} on {runtime.name}")
            checks = () if missing else subject.on(runtime)
            cells.append(Cell(name, runtime.name, checks, missing))
    about = (About(r.name, r.how, "" if lack else _version(r), lack) for r, lack in listed)
    return Matrix(tuple(about), bounds, tuple(cells))


def _version(runtime: Runtime) -> str:
    """Its version, where it comes up far enough to say so."""
    try:
        return runtime.version()
    except ExportError:
        return "unknown"


class _Subject:
    """One model, its graphs, and what the reference makes of the streams; for all runtimes."""

    def __init__(self, model: Model) -> None:
        self.model = model
        streams = [reference.check_input(model, STEPS, seed) for seed in SEEDS]
        whole = [truth(model, x) for x in streams]
        cut = [truth(model, x[:n]) for x, n in zip(streams, LENGTHS, strict=True)]
        # One bound for all checks: plain float32 may be almost exact on one short stream.
        bound, state_bound = Yardstick(model).bounds
        self.bound = max(bound, *(true.bound for true in (*whole, *cut)))
        self.state_bound = max(state_bound, *(true.state_bound for true in (*whole, *cut)))
        self.whole, self.cut = (
            [replace(true, bound=self.bound, state_bound=self.state_bound) for true in truths]
            for truths in (whole, cut)
        )
        self.batch = np.stack(streams)
        self.graphs = {lengths: _graph(model, lengths) for lengths in (False, True)}

    def on(self, runtime: Runtime) -> tuple[Check, ...]:
        """Every check of this model on one runtime."""
        done = []
        for lengths, ways in (
            (False, {SEQUENCE: _sequence, BATCH: _batch}),
            (True, {VARIABLE: _variable}),
        ):
            if not lengths and not self.model.bidirectional:
                # What is bidirectional cannot be cut.
                ways = {STEP: _stepped, SEQUENCE: _sequence, PIECES: _in_pieces, BATCH: _batch}
            loaded = _Loaded(self, runtime, self.graphs[lengths])
            try:
                done += [_check(name, way, loaded) for name, way in ways.items()]
            finally:
                loaded.close()
        return tuple(done)


def _graph(model: Model, lengths: bool) -> Graph:
    """The bytes of an .onnx file, or why the exporter cannot write one."""
    try:
        data: bytes = onnx_graph.build(model, lengths=lengths).SerializeToString()
    except UnsupportedError as error:
        return error
    return data


class _Loaded:
    """A graph in one runtime; loaded again after a refusal, which may have left it in ruins."""

    def __init__(self, subject: _Subject, runtime: Runtime, graph: Graph) -> None:
        self.subject, self.runtime, self.graph = subject, runtime, graph
        self.runner: Runner | None = None

    def close(self) -> None:
        if self.runner is not None:
            self.runner.close()
            self.runner = None

    def call(self, x: Floats, states: Feeds, lengths: Any = None) -> tuple[Floats, Feeds]:
        """X (batch, time, I) and the states to go on from -> y, and the states to feed next."""
        if isinstance(self.graph, UnsupportedError):
            raise self.graph
        if self.runner is None:
            try:
                self.runner = self.runtime.load(self.graph)
            except UnsupportedError as error:
                self.graph = error  # it would not be taken at the next check either
                raise
        feeds = {"x": x, **states}
        if lengths is not None:
            feeds["lengths"] = np.array(lengths, np.int32)
        found = self.runner.run(feeds)
        names = [state_names(state) for state in self.subject.model.states]
        return found["y"], {before: found[after] for before, after in names}

    def initial(self, batch: int = 1) -> Feeds:
        return dict(onnx_graph.initial_states(self.subject.model, batch))


def _check(name: str, way: Callable[[_Loaded], list[Row]], loaded: _Loaded) -> Check:
    try:
        rows = way(loaded)
    except UnsupportedError as error:
        loaded.close()
        return Check(name, "refused", note=" ".join(str(error).split()))
    except Exception as error:  # a foreign runtime may raise anything; the matrix must go on
        loaded.close()
        return Check(name, "failed", note=" ".join(f"{type(error).__name__}: {error}".split()))
    wrong = [row for row in rows if row.verdict != "ok"]
    # NumPy's greatest, because a NaN is greater than any.
    return Check(
        name,
        "wrong" if wrong else "ok",
        sum(row.steps for row in rows),
        float(np.max([row.max_abs_error for row in rows])),
        loaded.subject.bound,
        float(np.max([row.state_error for row in rows])),
        loaded.subject.state_bound,
        wrong[0].note if wrong else "",
    )


def _from_start(blocks: Iterable[slice], loaded: _Loaded) -> list[Row]:
    """The first sequence, block by block, its state carried."""

    def run(x: Floats) -> tuple[Floats, list[Floats]]:
        states, found = loaded.initial(), []
        for block in blocks:
            y, states = loaded.call(x[None, block], states)
            found.append(y[0])
        return np.concatenate(found), [state[0] for state in states.values()]

    return [judge("", run, loaded.subject.whole[0])]


def _stepped(loaded: _Loaded) -> list[Row]:
    return _from_start([slice(k, k + 1) for k in range(STEPS)], loaded)


def _sequence(loaded: _Loaded) -> list[Row]:
    return _from_start([slice(None)], loaded)


def _in_pieces(loaded: _Loaded) -> list[Row]:
    return _from_start([slice(a, b) for a, b in pairwise(CUTS)], loaded)


def _batch(loaded: _Loaded) -> list[Row]:
    subject = loaded.subject
    return _rows(subject.whole, *loaded.call(subject.batch, loaded.initial(len(SEEDS))))


def _variable(loaded: _Loaded) -> list[Row]:
    subject = loaded.subject
    return _rows(subject.cut, *loaded.call(subject.batch, loaded.initial(len(SEEDS)), LENGTHS))


def _rows(truths: Iterable[Truth], y: Floats, states: Feeds) -> list[Row]:
    """A batch's outputs and final states, each sequence against its own truth."""

    def one(k: int) -> Callable[[Floats], tuple[Floats, list[Floats]]]:
        return lambda x: (y[k, : len(x)], [state[k] for state in states.values()])

    return [judge("", one(k), true) for k, true in enumerate(truths)]


def _share(error: float, bound: float) -> float:
    """How much of its bound an error takes; what is no number takes more than any."""
    return error / bound if error == error else float("inf")


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
