"""What surrounds the timings, as tables: starts, makers' figures, contenders, models, machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import wording
from .tables import EMPTY, Cell, Table, duration_cell, from_columns, name_cell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .document import Document, Start

SECOND_NS = 1e9


def starts(document: Document) -> list[Table]:
    """One table for each model that was started, the fastest warm start first."""
    tables = []
    for model in dict.fromkeys(start.model for start in document.starts):
        all_of = sorted((s for s in document.starts if s.model == model), key=_start_s)
        found = [start for start in all_of if _start_s(start) < float("inf") or not start.note]
        columns = {
            "contender": [name_cell(document, start.contender) for start in found],
            "cold start": [duration_cell(start.cold_s, SECOND_NS) for start in found],
            "warm start": [duration_cell(start.warm_s, SECOND_NS) for start in found],
            "first call": [Cell(wording.duration(start.first_call_ns)) for start in found],
            "a step after": [Cell(wording.duration(start.steps_ns)) for start in found],
            "allocations a step": [_count(start.allocations_per_step) for start in found],
            "memory": [Cell(wording.size(start.resident_bytes)) for start in found],
            "file": [Cell(wording.size(start.file_bytes)) for start in found],
            "libraries": [Cell(wording.size(start.library_bytes)) for start in found],
            "error": [Cell(wording.error(start.error)) for start in found],
        }
        notes = [f"{start.contender}: {start.note}" for start in all_of if start.note]
        tables.append(from_columns(f"{model}, from the start of a process", columns, notes))
    return tables


def _start_s(start: Start) -> float:
    found = start.warm_s or start.cold_s
    return float("inf") if found is None else found.value


def _count(value: float | None) -> Cell:
    return EMPTY if value is None else Cell(f"{value:,.3g}" if value < 1000 else f"{value:,.0f}")


def published(document: Document) -> Table:
    """What makers publish for the same shapes, beside our own runtime as it was measured here."""
    own = {mode.name: mode.ours for mode in document.modes}
    here = {
        (row.model, row.mode): row for row in document.rows if row.contender == own.get(row.mode)
    }
    found = [(one, here.get((one.model, one.mode))) for one in document.published]
    columns = {
        "published by": [Cell(one.what) for one, _ in found],
        "model": [Cell(one.model) for one, _ in found],
        "mode": [Cell(one.mode) for one, _ in found],
        "published": [Cell(wording.duration(one.ns)) for one, _ in found],
        "ours here": [duration_cell(row.ns) if row else EMPTY for _, row in found],
    }
    notes = [f"{one.what}: {one.source}" for one, _ in found]
    return from_columns(
        "Published by others, on their machines; not measured here",
        columns,
        list(dict.fromkeys(notes)),
        words=3,
    )


def contenders(document: Document) -> Table:
    """Who was timed: version, precision and configuration."""
    columns = {
        "contender": [name_cell(document, one.name) for one in document.contenders],
        "version": [Cell(one.version or wording.NONE) for one in document.contenders],
        "weights": [Cell(one.precision) for one in document.contenders],
        "configuration": [Cell(one.configuration) for one in document.contenders],
    }
    return from_columns("Configuration of each contender", columns, words=4)


def models(document: Document) -> Table:
    """What was run."""
    columns = {
        "model": [Cell(one.name) for one in document.models],
        "layers": [Cell(one.layers) for one in document.models],
        "inputs": [Cell(f"{one.inputs:,}") for one in document.models],
        "outputs": [Cell(f"{one.outputs:,}") for one in document.models],
        "parameters": [Cell(f"{one.parameters:,}") for one in document.models],
    }
    return from_columns("Models", columns, words=2)


def modes(document: Document) -> Table:
    """What a call is in each mode, and what the ratios are taken to."""
    columns = {
        "mode": [Cell(mode.name) for mode in document.modes],
        "what is timed": [Cell(mode.meaning) for mode in document.modes],
        "ratios to": [name_cell(document, mode.ours) for mode in document.modes],
    }
    return from_columns("Modes", columns, words=3)


def pairs(title: str, values: Mapping[str, str]) -> Table:
    """Names and their values."""
    return Table(
        title,
        ("", ""),
        tuple((Cell(name), Cell(value)) for name, value in values.items()),
        frozenset({0, 1}),
    )


def machine(document: Document) -> Table:
    """What it was measured on."""
    return pairs("Machine", plain(document.machine))


def settings(document: Document) -> Table:
    """How it was measured, with the command that measured it."""
    taken = f"{document.seconds:,.0f} s"
    own = {"command": document.command, "started": document.started, "took": taken}
    return pairs("Settings", {**own, **plain(document.settings)})


def noise(document: Document) -> Table:
    """What else went on."""
    found = document.noise
    loads = (found.load_before, found.load_after)
    before, after = (wording.NONE if load is None else f"{load:.2f}" for load in loads)
    values = {
        "load average before, after": f"{before}, {after}" if loads != (None, None) else "",
        "a fixed loop, timed in each round": wording.duration(found.calibration_ns),
        "its 90th percentile above its median": wording.share(found.calibration_spread),
        "its slowest above its fastest": wording.share(found.calibration_worst),
        "CPU time taken by the hypervisor": (
            "" if found.stolen is None else wording.share(found.stolen)
        ),
        "involuntary context switches": (
            "" if found.involuntary_switches is None else f"{found.involuntary_switches:,}"
        ),
    }
    return pairs("Noise", {name: value for name, value in values.items() if value})


def plain(values: Mapping[str, Any]) -> dict[str, str]:
    """Settings or facts of a machine as words; what is unknown is left out."""
    found = {}
    for name, value in values.items():
        words = wording.size(value) if name.endswith("_bytes") and value else _words(value)
        if words:
            found[name.removesuffix("_bytes").replace("_", " ")] = words
    return found


def _words(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        found = ((name, _words(one)) for name, one in value.items())
        return ", ".join(f"{name} {words}" for name, words in found if words)
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_words, value)))
    return str(value)
