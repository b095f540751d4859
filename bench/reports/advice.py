"""Which runtime to take for a model, and why: answers read off the figures of a Document.

Only contenders that compute the reference's numbers are advised. Where two are as fast within the
noise, both are named. A runtime of ours gets no other rule than the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import selection
from .document import Advice
from .wording import duration, percent, seconds, size, times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .document import Document, ModeInfo, Row, Start

QUESTIONS = {
    "closed": "One live stream, a call for each sample",
    "sequence": "Whole sequences, or long blocks at once",
    "periodic": "A block at a fixed rate, each with a deadline",
    "poisson": "Requests at random moments, one stream",
    "streams": "{streams} live streams at once",
}
# An answer that leans on it says so: no figure here speaks of other languages.
PORTABLE = "ONNX Runtime"


def advise(document: Document) -> tuple[Advice, ...]:
    """Answers for the document's first model; none for a question that nothing was timed for."""
    if not document.models:
        return ()
    model = document.models[0].name
    found = [
        _for_mode(document, mode, selection.rows_of(document, model, mode.name))
        for mode in document.modes
    ]
    starts = [start for start in document.starts if start.model == model and not start.note]
    found += [_for_start(starts), _for_memory(starts), _for_disk(starts)]
    found.append(_outside_python(document, model))
    return tuple(advice for advice in found if advice is not None)


def _for_mode(document: Document, mode: ModeInfo, rows: Sequence[Row]) -> Advice | None:
    rows = [row for row in rows if row.ns and not selection.floor(document, row.contender)]
    right = [row for row in rows if row.error is not None and _exact(document, row)]
    late = [row for row in right if row.deadline and row.deadline.overrun]
    able = [row for row in right if row not in late]
    if mode.kind == "periodic":
        able = _on_time(able)
    if not able:
        return None
    best = able[0]
    reasons = [_speed(best, mode)]
    reasons += _next(document, mode, best, able[1:])
    reasons += _deadlines(best, late)
    lossy = [row for row in rows if not _exact(document, row) and _value(row) < _value(best)]
    reasons += [
        f"{row.contender} is faster, {duration(_value(row))}, but another network: its outputs "
        f"differ by up to {row.error:.1e}"
        for row in lossy
    ]
    question = QUESTIONS[mode.kind].format(streams=mode.streams)
    if mode.rate_hz is not None and mode.kind in ("periodic", "poisson"):
        question += f" ({mode.name})"
    return Advice(question=question, contender=best.contender, reasons=tuple(reasons))


def _on_time(rows: Sequence[Row]) -> list[Row]:
    """Those that miss no more deadlines than the best, but for chance, and then the others.

    Counts differ by chance where they are within two of their deviations (Poisson).
    """
    least = min((_missed(row) for row in rows), default=0)
    late = [row for row in rows if _missed(row) - least > 2 * (_missed(row) + least) ** 0.5]
    return [row for row in rows if row not in late] + late


def _missed(row: Row) -> int:
    return row.deadline.missed if row.deadline else 0


def _exact(document: Document, row: Row) -> bool:
    return selection.precision(document, row.contender) in ("", "float64")


def _value(row: Row) -> float:
    return row.ns.value if row.ns else float("inf")


def _speed(row: Row, mode: ModeInfo) -> str:
    what = "a call" if mode.unit == "call" else "a time step"
    if mode.kind == "streams":
        what = "a sample of one stream"
    text = f"{duration(_value(row))} {what}"
    if row.latency and row.latency.percentiles and mode.kind != "sequence":
        worst = row.latency.percentiles[-1]
        text += (
            f"; {percent(worst.percent)} of {row.latency.samples:,} calls {duration(worst.ns)}, "
            f"the slowest {duration(row.latency.max_ns)}"
        )
    if row.error is not None:
        text += f"; within {row.error:.1e} of the float64 reference"
    return text


def _next(document: Document, mode: ModeInfo, best: Row, others: Iterable[Row]) -> list[str]:
    """The nearest other runtime: by how much it is behind, or that it is not."""
    family = selection.ours(document, best.contender)
    for row in others:
        if family and selection.ours(document, row.contender):
            continue
        if best.ns and row.ns and row.ns.low <= best.ns.high:
            return [f"{row.contender} is as fast within the noise: {duration(row.ns.value)}"]
        # Where ours is best, the table has this very ratio, taken within each round.
        ratio = row.ratio if best.contender == mode.ours else None
        factor = times(ratio.value if ratio else _value(row) / _value(best))
        return [f"the next, {row.contender}, takes {factor} times as long: {duration(_value(row))}"]
    return []


def _deadlines(best: Row, late: Sequence[Row]) -> list[str]:
    reasons = []
    if best.deadline is not None:
        missed, calls = best.deadline.missed, best.deadline.calls
        reasons.append(f"{missed:,} of {calls:,} calls were done later than one period")
    if best.times_real_time is not None:
        reasons.append(f"{times(best.times_real_time)} times as fast as its samples come")
    if late:
        names = ", ".join(row.contender for row in late)
        reasons.append(f"too slow for this rate: {names}")
    return reasons


def _least(
    starts: Sequence[Start], value: Callable[[Start], float | None]
) -> tuple[Start, float, Start | None] | None:
    """Whoever has least of something, how much, and who comes next."""
    known = [(found, start) for start in starts if (found := value(start)) is not None]
    if not known:
        return None
    known.sort(key=lambda pair: pair[0])
    return known[0][1], known[0][0], known[1][1] if len(known) > 1 else None


def _for_start(starts: Sequence[Start]) -> Advice | None:
    found = _least(starts, lambda start: start.warm_s.value if start.warm_s else None)
    if found is None:
        return None
    best, value, after = found
    reasons = [f"{seconds(value)} from the start of a process to its first output"]
    if best.cold_s is not None:
        reasons.append(f"{seconds(best.cold_s.value)} where no machine code is kept yet")
    if after is not None and after.warm_s is not None:
        reasons.append(f"the next, {after.contender}, takes {seconds(after.warm_s.value)}")
    return Advice(
        question="A process that starts often, such as a command",
        contender=best.contender,
        reasons=tuple(reasons),
    )


def _for_memory(starts: Sequence[Start]) -> Advice | None:
    found = _least(starts, lambda start: start.resident_bytes)
    if found is None:
        return None
    best, value, after = found
    reasons = [f"{size(value)} resident, the interpreter included"]
    if after is not None:
        reasons.append(f"the next, {after.contender}, has {size(after.resident_bytes)}")
    none = [start.contender for start in starts if start.allocations_per_step == 0]
    if none:
        reasons.append(f"no allocation in a step: {', '.join(none)}")
    return Advice(
        question="A machine with little memory", contender=best.contender, reasons=tuple(reasons)
    )


def _for_disk(starts: Sequence[Start]) -> Advice | None:
    found = _least(starts, lambda start: start.library_bytes)
    if found is None:
        return None
    best, value, after = found
    reasons = [f"{size(value)} of libraries"]
    if best.file_bytes is not None:
        reasons.append(f"{size(best.file_bytes)} for the model itself")
    if after is not None:
        reasons.append(f"the next, {after.contender}, needs {size(after.library_bytes)}")
    return Advice(question="A small installation", contender=best.contender, reasons=tuple(reasons))


def _outside_python(document: Document, model: str) -> Advice | None:
    rows = [row for row in document.rows if row.model == model and row.ns]
    right = [row for row in rows if row.contender.startswith(PORTABLE) and row.error is not None]
    if not right:
        return None
    error = max(row.error or 0.0 for row in right)
    return Advice(
        question="Another language, a browser, a phone",
        contender="the ONNX file",
        reasons=(
            f"it computes this model within {error:.1e} of the reference in ONNX Runtime here",
            "not timed outside Python; fastlstm verify MODEL --all says where else it is right",
        ),
    )
